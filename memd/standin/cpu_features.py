"""The features of CPUs, and those of `-cpu MODEL,...`: whether the model has such, and
takes such values.

What a host could provide is not asked: a CPU has what the catalogue's QEMU emulated.
Texts and values were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from memd.config import Global, MachineConfig
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.qapi.numbers import parse_size
from memd.qom import ObjectType, Property, Tree
from memd.qom.object import not_found
from memd.standin.catalogue import Catalogue
from memd.standin.property_text import read_global
from memd.standin.types import CatalogueTypes

_SUFFIX = "-x86_64-cpu"

_OF_CPUS = {"guest-phys-bits": 0, "hv-vendor-id": "Microsoft Hv", "realized": True}
"""What a CPU has otherwise than its model."""

_CHOICE = (
    "(check|enforce|host-phys-bits|kvm|l3-cache|legacy-cache|lmce|migratable|pmu|start-powered-off)$"
    "|cpuid-|fill-|full-|hv-|hot|legacy-|tcg-|vmware-|x-|xen-"
    # These tell software what it need not do.
    "|(rdctl|ssb|mds|pschange-mc|taa|sbdr-ssdp|fbsdp|psdp|bhi|pbrsb|gds|rfds|its)-no$"
    "|(ibrs-all|rsba|skip-l1dfl-vmentry|tsx-ctrl|fb-clear)$"
)
"""What is switched, and is no feature that the processor has to have."""

_IN_HERTZ = "tsc-freq"
"""No property, and without effect here."""

_ALIASES = {"sse3": "pni", "xd": "nx", "i64": "lm", "ffxsr": "fxsr-opt", "pclmuldq": "pclmulqdq"}


def check_features(catalogue: Catalogue, tree: Tree, type_name: str, text: str) -> None:
    """Check what follows a model's name.

    Args:
        catalogue: what has the model's type.
        tree: what has no such type.
        type_name: the model's type.
        text: `NAME=VALUE`, `NAME`, `+NAME` and `-NAME`, between commas.

    Raises:
        QMPError: there is no such feature, or it does not take its value.
    """
    known = CatalogueTypes(catalogue, tree).find(type_name)
    if known is None or catalogue.section("types")[type_name]["removed"] is None:
        # It could not be asked for what it has.
        return
    for _name, _value in _given(known, text):
        pass


def _given(known: ObjectType, text: str) -> Iterator[tuple[str, JSON]]:
    """The features and values behind a model's name, in the order in which they are acted on.

    Raises:
        QMPError: there is no such feature, or it does not take its value.
    """
    # Those with a sign are set last.
    for word in sorted(filter(None, text.split(",")), key=lambda word: word[0] in "+-"):
        name, is_given, told = word.partition("=")
        name, told = name.replace("_", "-"), told if is_given else "on"
        if word[0] in "+-":
            if word[1:] not in known.all_properties:
                raise not_found(known, word[1:])
            yield word[1:], word[0] == "+"
        elif name != _IN_HERTZ:
            yield name, read_global(known, Global(known.name, name, told))
        elif parse_size(told) is None:
            raise QMPError(f"bad numerical value {told}")


def cpu_properties(
    catalogue: Catalogue, tree: Tree, machine: MachineConfig, type_name: str
) -> dict[str, Property]:
    """The properties that all of a machine's CPUs have; see `cpu_values`."""
    known = CatalogueTypes(catalogue, tree).find(type_name)
    values = cpu_values(catalogue, tree, machine, type_name)
    if known is None:
        return {}
    return {
        name: Property(name, told.type, get=partial(_always, values[name]))
        for name, told in known.all_properties.items()
        if name in values
    }


def cpu_values(
    catalogue: Catalogue, tree: Tree, machine: MachineConfig, type_name: str
) -> JSONObject:
    """What the properties hold that all of a machine's CPUs have, by name.

    Args:
        catalogue: what has the model's expansion.
        tree: what has no such type.
        machine: how many there are, and what is said of their features.
        type_name: the model's type.

    Raises:
        QMPError: the catalogue can't be read.
    """
    known = CatalogueTypes(catalogue, tree).find(type_name)
    values = _expanded(catalogue, _model(catalogue, machine, type_name))
    if known is None or not values:
        return {}
    for name, value in _given(known, machine.cpu_features):
        values |= dict.fromkeys(_names_of(name, values), value)
    # What is not emulated stays off, also where it is asked for.
    values |= dict.fromkeys(_not_emulated(catalogue), False)
    amd = values["vendor"] == "AuthenticAMD"
    if any(machine.smp.get(level, 1) > 1 for level in ("dies", "modules", "cores", "threads")):
        values |= dict.fromkeys(("ht", *_names_of("cmp-legacy", values) * amd), True)
    bits = 40 if values["lm"] else 36 if values["pse36"] or values["pae"] else 32
    unset = {"phys-bits": bits, "ucode-rev": 0x1000065 if amd else 1 << 32}
    if type_name == f"max{_SUFFIX}":
        unset |= {"family": 6, "model": 6, "stepping": 3}
    return values | {name: value for name, value in unset.items() if not values[name]}


def _model(catalogue: Catalogue, machine: MachineConfig, type_name: str) -> str:
    """The model that a type stands for: on `microvm` the newest version of it."""
    model = type_name.removesuffix(_SUFFIX)
    if machine.type != "microvm":
        return model
    versions = [
        int(name.removeprefix(f"{model}-v"))
        for name in catalogue.section("full")
        if re.fullmatch(re.escape(model) + r"-v\d{1,4}", name)
    ]
    return f"{model}-v{max(versions)}" if versions else model


def _not_emulated(catalogue: Catalogue) -> list[str]:
    """The features that no CPU has."""
    emulated = _expanded(catalogue, "max")
    return [name for name in emulated if emulated[name] is False and not re.match(_CHOICE, name)]


def complaints(
    catalogue: Catalogue, tree: Tree, machine: MachineConfig, type_name: str
) -> tuple[list[str], bool]:
    """What is said of the features that a CPU lacks when it is made; whether it may lack them.

    Args:
        catalogue: what has the model's expansion.
        tree: what has no such type.
        machine: what is said of its features.
        type_name: the model's type.

    Raises:
        QMPError: it is the host's CPU, which nothing emulates.
    """
    if type_name == f"host{_SUFFIX}":
        raise QMPError("CPU model 'host' requires KVM or HVF")
    # Its type has hundreds of properties, which what is named is looked for among.
    known = CatalogueTypes(catalogue, tree).find(type_name) if machine.cpu_features else None
    values = _expanded(catalogue, _model(catalogue, machine, type_name))
    if not values:
        return [], True
    from memd.standin.lacking_features import lacking

    named: set[str] = set()
    for name, value in () if known is None else _given(known, machine.cpu_features):
        names = _names_of(name, values)
        named.update(names)
        values |= dict.fromkeys(names, value)
    emulated = _expanded(catalogue, "max")
    lacked = [
        name for name, value in values.items() if value is True and emulated.get(name) is False
    ]
    asked = {name for name in lacked if not re.match(_CHOICE, name)}
    found = lacking(asked, named, tree.compat)
    warnings = [
        f"This feature depends on other features that were not requested: {each}"
        for each in found.nothing
    ]
    if values["check"] or values["enforce"]:
        warnings += [f"TCG doesn't support requested feature: {each}" for each in found.emulated]
    return warnings, not (values["enforce"] and warnings)


def _always(value: JSON, cpu: object) -> JSON:
    return value


def _names_of(name: str, values: JSONObject) -> list[str]:
    """The names that a feature has."""

    def plain(each: str) -> str:
        each = each.replace("_", "-").replace(".", "-")
        return _ALIASES.get(each, each)

    return [each for each in values if plain(each) == plain(name)]


def _expanded(catalogue: Catalogue, model: str) -> JSONObject:
    """What a CPU of a model has; empty for one that is not known."""
    try:
        _name, values = expansion(catalogue, "full", model)
    except QMPError:
        return {}
    return values | _OF_CPUS


def expansion(catalogue: Catalogue, kind: str, model: str) -> tuple[str, JSONObject]:
    """What a model comes to, and its name then.

    Args:
        kind: "full" or "static".

    Raises:
        QMPError: it is not known, or could not be expanded.
    """
    known = catalogue.section(kind).get(model)
    if known is None:
        raise QMPError(f"The CPU type '{model}' is not a recognized CPU type")
    if "error" in known:
        raise QMPError(known["error"]["desc"], known["error"]["class"])
    values = catalogue.section("bases")[kind] | known["set"]
    return known["name"], {each: values[each] for each in values if each not in known["unset"]}
