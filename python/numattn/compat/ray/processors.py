"""How many threads an actor may use: as many as Ray has given it processors."""

from __future__ import annotations

MISSING = "numattn.compat.ray needs Ray: pip install 'numattn[ray]'"


def threads_given() -> int | None:
    """Return the processors of this actor, of a part of one too; None outside of Ray's workers.

    Raises
    ------
    ImportError
        Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(MISSING) from error
    if not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE:
        return None
    return max(1, int(context.get_assigned_resources().get("CPU", 0)))
