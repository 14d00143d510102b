// Drives the service with nothing of the project but its proto directory.
//
//   node client.js TARGET PROTO_DIRECTORY
//
// prints what came back as JSON.
"use strict";

const crypto = require("node:crypto");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const protobuf = require("protobufjs");

const [target, directory] = process.argv.slice(2);

// Enums as their names, 64-bit numbers as text, and no field that was not set.
const options = { keepCase: true, longs: String, enums: String, oneofs: true, includeDirs: [directory] };
const files = ["model", "visualization", "job"].map((name) => `neurofv/v1/${name}_service.proto`);
const { neurofv } = grpc.loadPackageDefinition(loader.loadSync(files, options));
const connect = (service) => new neurofv.v1[service](target, grpc.credentials.createInsecure());
const [models, visualization, jobs] = ["ModelService", "VisualizationService", "JobService"].map(connect);

// What travels in the trailer grpc-status-details-bin: google.rpc.Status, and the details of an error that
// this client wants to read.
const { root: rpc } = protobuf.parse(`
  syntax = "proto3";
  package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message BadRequest {
    message FieldViolation { string field = 1; string description = 2; }
    repeated FieldViolation field_violations = 1;
  }
  message ResourceInfo { string resource_type = 1; string resource_name = 2; }
`);

function details(error) {
  const [trailer] = error.metadata.get("grpc-status-details-bin");
  const status = rpc.lookupType("google.rpc.Status").decode(trailer);
  const found = { code: grpc.status[error.code], message: status.message };
  for (const { typeUrl, value } of status.details) {
    const type = rpc.lookupType(typeUrl.split("/").pop());
    found[type.name] = type.toObject(type.decode(value));
  }
  return found;
}

const unary = (client, method, request) =>
  new Promise((resolve, reject) =>
    client[method](request, { deadline: Date.now() + 60_000 }, (error, answer) =>
      error ? reject(error) : resolve(answer),
    ),
  );

const refusal = async (promise) => {
  try {
    await promise;
  } catch (error) {
    return details(error);
  }
  throw new Error("was not refused");
};

const cube = (more) => ({
  model: "lesion-shapes",
  objective: { terms: [{ class_logit: { class_name: "cube" } }] },
  canvas: { size_mm: { i: 64, j: 64, k: 64 } },
  ...more,
});

// Reads a stream; `leave` tells at which event to go away.
async function follow(stream, unwrap = (event) => event, leave = () => false) {
  const seen = { kinds: [], steps: [], states: [], volumes: [], sequence: "0" };
  let hash, begin;
  for await (const message of stream) {
    const event = unwrap(message);
    seen.kinds.push(event.event);
    if (event.state_changed) seen.states.push(event.state_changed.state);
    if (event.progress) seen.steps.push(event.progress.step);
    if (event.volume_begin) {
      begin = event.volume_begin;
      hash = crypto.createHash("sha256");
    }
    if (event.volume_chunk) hash.update(event.volume_chunk.data);
    if (event.volume_end) {
      const matches = hash.digest("hex") === begin.sha256;
      seen.volumes.push({ id: begin.id, kind: begin.kind, shape: begin.shape, sha256: begin.sha256, matches });
    }
    // A volume's messages share one number: it is known whole when its end is.
    if (!event.volume_begin && !event.volume_chunk) seen.sequence = event.sequence;
    if (leave(event)) {
      stream.cancel();
      break;
    }
  }
  return seen;
}

async function main() {
  const found = {};
  found.models = (await unary(models, "ListModels", {})).models ?? [];

  const whole = cube({ steps: 6, snapshot_every: 3 });
  found.visualized = await follow(visualization.Visualize(whole));

  found.unknown_class = await refusal(
    follow(visualization.Visualize({ ...whole, objective: { terms: [{ class_logit: { class_name: "egg" } }] } })),
  );
  found.bad_field = await refusal(unary(jobs, "CreateJob", { request: { ...whole, steps: -1 } }));

  // Leaves in the middle, and goes on behind the last event that it knows.
  const { job } = await unary(jobs, "CreateJob", { request: whole });
  const watch = (name, after_sequence) => jobs.WatchJob({ name, after_sequence });
  const event = (answer) => answer.event;
  found.left = await follow(watch(job.name, "0"), event, ({ progress }) => progress?.step === 2);
  found.resumed = await follow(watch(job.name, found.left.sequence), event);

  const long = await unary(jobs, "CreateJob", { request: cube({ steps: 5000, snapshot_every: 0 }) });
  const running = follow(watch(long.job.name, "0"), event);
  found.cancelling = (await unary(jobs, "CancelJob", { name: long.job.name })).job.state;
  found.cancelled = await running;
  found.cancelled_state = (await unary(jobs, "GetJob", { name: long.job.name })).job.state;
  return found;
}

main().then(
  (found) => {
    console.log(JSON.stringify(found));
    for (const client of [models, visualization, jobs]) client.close();
  },
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
