"""Which codec each profile uses for each kind of data."""

from vrekit.core.errors import UsageError
from vrekit.core.names import did_you_mean
from vrekit.core.spec import Kind, OutputSpec

PROFILES = ("archive", "balanced", "training")


def choose(spec: OutputSpec, *, profile: str, lossy: bool | None) -> tuple[str, ...]:
    """Return candidates, best first; the first one that takes the data is meant."""
    if profile not in PROFILES:
        raise UsageError(f"unknown codec profile {profile!r}{did_you_mean(profile, PROFILES)}")
    if spec.kind is Kind.COLOR and lossy:
        return ("jpg", "npy.zst")
    return ("npy.zst",) if spec.kind is not Kind.EMBEDDING else ("npy",)
