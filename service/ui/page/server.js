// The server's answers. The token is kept in this tab's session storage and sent as a header: no cookie, so no
// other site can make this browser ask in its bearer's name.

const KEY = "neurofv-token";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Whether asking again may help: a server that is away or busy, or none at all.
export const passes = ({ status }) => status === undefined || status >= 500 || status === 429;

export const token = () => sessionStorage.getItem(KEY);
export const keep = (text) => sessionStorage.setItem(KEY, text);
export const forget = () => sessionStorage.removeItem(KEY);

async function ask(path, signal) {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  const answer = await fetch(`api/${path}`, { headers, signal, credentials: "omit", redirect: "error" });
  if (answer.ok) return answer;
  const text = await answer.text();
  let message = text.trim();
  try {
    message = JSON.parse(text).error.message;
  } catch {
    // Not the service's own words: what stands before it, such as a proxy.
  }
  throw new Refused(answer.status, message || answer.statusText);
}

export const json = async (path, signal) => (await ask(path, signal)).json();

export async function bytes(path, signal) {
  const answer = await ask(path, signal);
  const found = await answer.arrayBuffer();
  const whole = Number(answer.headers.get("Content-Length"));
  if (found.byteLength !== whole) throw new Refused(500, "a volume's file ended early; the server's log says why");
  return found;
}

export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
