"""The forms in which the weights of a bundle can be run, each with a name and a hash of its own. See `forms_of`.

Embeddings of different arithmetic must not be compared: a baseline names the form it was made with. The hash of a form
follows from the files of the bundle alone. A new driver or library, or an engine that was built again, leaves it as it
is.
"""

from dataclasses import dataclass

from fisher_edge.encoder.bundle import Bundle, sha256

__all__ = ["FP16", "PLAIN", "Form", "forms_of"]

# The model file in its own precision, and what is rounded to half precision while an engine is built from it.
PLAIN = "plain"
FP16 = "fp16"


@dataclass(frozen=True)
class Form:
    """One form: `key` is PLAIN, FP16 or the name of a variant; `name` and `sha256` are what baselines record."""

    key: str
    name: str
    sha256: str


def forms_of(bundle: Bundle) -> dict[str, Form]:
    """Return every form of a bundle by its key; PLAIN has the name and the hash of the bundle itself."""
    forms = {PLAIN: Form(PLAIN, bundle.name, bundle.sha256)}
    if bundle.precision == "fp32":
        forms[FP16] = _derived(bundle, FP16, [])
    for variant in bundle.variants.values():
        forms[variant.name] = _derived(bundle, variant.name, sorted(variant.files.values()))
    return forms


def _derived(bundle: Bundle, key: str, digests: list[str]) -> Form:
    """Name a form after its bundle, and hash what it is made of."""
    digest = sha256("\n".join([bundle.sha256, key, *digests]).encode())
    return Form(key, f"{bundle.name} ({key.replace('-', ' ')})", digest)
