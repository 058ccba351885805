"""The software bill of materials of an archive, in CycloneDX."""

import uuid
from datetime import datetime, timezone

from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.factory.license import LicenseFactory
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from crates import Crate
from wheels import Wheel

NAMESPACE = uuid.UUID("7b0f5c0e-0d0e-4d43-9a52-0c9a1a6b3c55")


def component(part: Crate | Wheel) -> Component:
    return Component(
        name=part.name,
        version=part.version,
        bom_ref=part.reference,
        purl=PackageURL.from_string(part.reference) if part.reference.startswith("pkg:") else None,
        licenses=[LicenseFactory().make_from_string(part.licence)],
    )


def write(
    archive: str, version: str, time: int, crates: dict[Crate, set[Crate]], wheels: list[Wheel]
) -> str:
    """The document. The same archive gives the same bytes: its number is made from its name and
    its parts, and its time is that of the revision."""
    parts = sorted([*crates, *wheels], key=lambda part: part.reference)
    known = {part.reference: component(part) for part in parts}
    program = Component(
        name=archive, version=version, type=ComponentType.APPLICATION, bom_ref=archive,
        licenses=[LicenseFactory().make_from_string("MIT")],
    )
    content = "\n".join([archive, version, str(time), *known])
    document = Bom(
        serial_number=uuid.uuid5(NAMESPACE, content),
        components=known.values(),
        metadata=BomMetaData(
            component=program, timestamp=datetime.fromtimestamp(time, timezone.utc)
        ),
    )
    dependencies = {needed.reference for all_of in crates.values() for needed in all_of}
    roots = [known[part.reference] for part in parts if part.reference not in dependencies]
    document.register_dependency(program, roots)
    for crate, needed in crates.items():
        document.register_dependency(known[crate.reference], [known[each.reference] for each in needed])
    text = JsonV1Dot6(document).output_as_string(indent=2)
    if wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"the bill of materials of {archive} is not valid: {wrong}")
    return text + "\n"
