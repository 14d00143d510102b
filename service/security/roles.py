"""Which role each method needs at least. What the table does not name is for admins."""

from service.security.identity import Role

_JOBS, _OPERATIONS = "/neurofv.v1.JobService", "/google.longrunning.Operations"
_OIP = "/inference.GRPCInferenceService"
LEAST_ROLES = {
    "/neurofv.v1.ModelService/ListModels": Role.VIEWER,
    "/neurofv.v1.ModelService/GetModel": Role.VIEWER,
    "/neurofv.v1.VisualizationService/Visualize": Role.SUBMITTER,
    "/neurofv.v1.VisualizationService/Estimate": Role.SUBMITTER,
    "/neurofv.v1.VisualizationService/Probe": Role.SUBMITTER,
    f"{_JOBS}/CreateJob": Role.SUBMITTER,
    f"{_JOBS}/GetJob": Role.VIEWER,
    f"{_JOBS}/ListJobs": Role.VIEWER,
    f"{_JOBS}/WatchJob": Role.VIEWER,
    f"{_JOBS}/CancelJob": Role.SUBMITTER,
    f"{_JOBS}/DeleteJob": Role.SUBMITTER,
    f"{_JOBS}/PinJob": Role.SUBMITTER,
    f"{_JOBS}/ReadVolume": Role.VIEWER,
    f"{_OPERATIONS}/GetOperation": Role.VIEWER,
    f"{_OPERATIONS}/ListOperations": Role.VIEWER,
    f"{_OPERATIONS}/WaitOperation": Role.VIEWER,
    f"{_OPERATIONS}/CancelOperation": Role.SUBMITTER,
    f"{_OPERATIONS}/DeleteOperation": Role.SUBMITTER,
    "/neurofv.v1.AuditService/ReadAudit": Role.ADMIN,
    f"{_OIP}/ServerLive": Role.VIEWER,
    f"{_OIP}/ServerReady": Role.VIEWER,
    f"{_OIP}/ModelReady": Role.VIEWER,
    f"{_OIP}/ServerMetadata": Role.VIEWER,
    f"{_OIP}/ModelMetadata": Role.VIEWER,
    f"{_OIP}/ModelInfer": Role.SUBMITTER,
    "/grpc.health.v1.Health/Watch": Role.VIEWER,
    "/grpc.health.v1.Health/List": Role.VIEWER,
}
# Orchestrators ask for health, and have no credential. Watching it never ends, so it takes one.
_FREE = ("/grpc.health.v1.Health/Check",)
_REFLECTION = "/grpc.reflection."


def least_role(method: str, reflection: str) -> Role | None:
    """Return the least role for a method, or None if it needs no credential.

    Parameters
    ----------
    method : str
        Its full name, `/package.Service/Method`.
    reflection : {"auto", "on", "off"}
        The setting.
    """
    if method.startswith(_FREE):
        return None
    if method.startswith(_REFLECTION):
        return None if reflection == "on" else Role.VIEWER
    return LEAST_ROLES.get(method, Role.ADMIN)
