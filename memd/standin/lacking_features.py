"""The features of processors that QEMU does not emulate, and what it says of those asked for.

The places of the features were observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

from memd.compat import Compat
from memd.named_tuple import NamedTuple

_WORDS = (
    ("CPUID[eax=01h].EDX", "vme=1 pn=18 ds=21 tm=29 ia64=30 pbe=31"),
    (
        "CPUID[eax=01h].ECX",
        "dtes64=2 ds-cpl=4 vmx=5 smx=6 est=7 tm2=8 cid=10 xtpr=14 pdcm=15 pcid=17 dca=18 "
        "tsc-deadline=24",
    ),
    (
        "CPUID[eax=07h,ecx=00h].EBX",
        "tsc-adjust=1 sgx=2 hle=4 fdp-excptn-only=6 invpcid=10 rtm=11 zero-fcs-fds=13 "
        "avx512f=16 avx512dq=17 avx512ifma=21 pcommit=22 intel-pt=25 avx512pf=26 "
        "avx512er=27 avx512cd=28 avx512bw=30 avx512vl=31",
    ),
    (
        "CPUID[eax=07h,ecx=00h].ECX",
        "avx512vbmi=1 waitpkg=5 avx512vbmi2=6 gfni=8 vpclmulqdq=10 avx512vnni=11 "
        "avx512bitalg=12 avx512-vpopcntdq=14 bus-lock-detect=24 cldemote=25 movdiri=27 "
        "movdir64b=28 sgxlc=30",
    ),
    (
        "CPUID[eax=07h,ecx=00h].EDX",
        "avx512-4vnniw=2 avx512-4fmaps=3 avx512-vp2intersect=8 md-clear=10 serialize=14 "
        "tsx-ldtrk=16 arch-lbr=19 amx-bf16=22 avx512-fp16=23 amx-tile=24 amx-int8=25 "
        "spec-ctrl=26 stibp=27 flush-l1d=28 arch-capabilities=29 core-capability=30 "
        "ssbd=31",
    ),
    (
        "CPUID[eax=07h,ecx=01h].EAX",
        "sha512=0 sm3=1 sm4=2 avx-vnni=4 avx512-bf16=5 fred=17 lkgs=18 wrmsrns=19 "
        "amx-fp16=21 avx-ifma=23 lam=26",
    ),
    ("CPUID[eax=80000001h].EDX", "fxsr-opt=25"),
    (
        "CPUID[eax=80000001h].ECX",
        "extapic=3 misalignsse=7 osvw=9 ibs=10 xop=11 skinit=12 wdt=13 lwp=15 fma4=16 "
        "tce=17 nodeid-msr=19 tbm=21 topoext=22 perfctr-core=23 perfctr-nb=24",
    ),
    ("CPUID[eax=80000007h].EBX", "overflow-recov=0 succor=1"),
    ("CPUID[eax=80000007h].EDX", "invtsc=8"),
    (
        "CPUID[eax=80000008h].EBX",
        "clzero=0 ibpb=12 ibrs=14 amd-stibp=15 stibp-always-on=17 amd-ssbd=24 "
        "virt-ssbd=25 amd-no-ssb=26 amd-psfd=28",
    ),
    (
        "CPUID[eax=80000021h].EAX",
        "no-nested-data-bp=0 lfence-always-serializing=2 null-sel-clr-base=6 auto-ibrs=8 "
        "eraps=24 sbpb=27 ibpb-brtype=28 srso-no=29 srso-user-kernel-no=30",
    ),
    ("CPUID[eax=80000022h].EAX", "perfmon-v2=0"),
    (
        "CPUID[eax=C0000001h].EDX",
        "xstore=2 xstore-en=3 xcrypt=6 xcrypt-en=7 ace2=8 ace2-en=9 phe=10 phe-en=11 "
        "pmm=12 pmm-en=13",
    ),
    ("CPUID[eax=40000001h].EDX", "kvm-hint-dedicated=0"),
    (
        "CPUID[eax=8000000Ah].EDX",
        "lbrv=1 svm-lock=2 nrip-save=3 tsc-scale=4 vmcb-clean=5 flushbyasid=6 "
        "decodeassists=7 pause-filter=10 pfthreshold=12 avic=13 v-vmsave-vmload=15 "
        "vnmi=25",
    ),
    ("CPUID[eax=0Dh,ecx=01h].EAX", "xsavec=1 xsaves=3 xfd=4"),
    ("MSR(CFh)", "split-lock-detect=5"),
    (
        "MSR(48Eh)",
        "vmx-vintr-pending=2 vmx-tsc-offset=3 vmx-hlt-exit=7 vmx-invlpg-exit=9 "
        "vmx-mwait-exit=10 vmx-rdpmc-exit=11 vmx-rdtsc-exit=12 vmx-cr3-load-noexit=15 "
        "vmx-cr3-store-noexit=16 vmx-cr8-load-exit=19 vmx-cr8-store-exit=20 "
        "vmx-flexpriority=21 vmx-vnmi-pending=22 vmx-movdr-exit=23 vmx-io-exit=24 "
        "vmx-io-bitmap=25 vmx-mtf=27 vmx-msr-bitmap=28 vmx-monitor-exit=29 "
        "vmx-pause-exit=30 vmx-secondary-ctls=31",
    ),
    (
        "MSR(48Bh)",
        "vmx-apicv-xapic=0 vmx-ept=1 vmx-desc-exit=2 vmx-rdtscp-exit=3 vmx-apicv-x2apic=4 "
        "vmx-vpid=5 vmx-wbinvd-exit=6 vmx-unrestricted-guest=7 vmx-apicv-register=8 "
        "vmx-apicv-vid=9 vmx-ple=10 vmx-rdrand-exit=11 vmx-invpcid-exit=12 vmx-vmfunc=13 "
        "vmx-shadow-vmcs=14 vmx-encls-exit=15 vmx-rdseed-exit=16 vmx-pml=17 vmx-xsaves=20 "
        "vmx-tsc-scaling=25 vmx-enable-user-wait-pause=26",
    ),
    (
        "MSR(48Dh)",
        "vmx-intr-exit=0 vmx-nmi-exit=3 vmx-vnmi=5 vmx-preemption-timer=6 vmx-posted-intr=7",
    ),
    (
        "MSR(48Fh)",
        "vmx-exit-nosave-debugctl=2 vmx-exit-load-perf-global-ctrl=12 "
        "vmx-exit-ack-intr=15 vmx-exit-save-pat=18 vmx-exit-load-pat=19 "
        "vmx-exit-save-efer=20 vmx-exit-load-efer=21 vmx-exit-save-preemption-timer=22 "
        "vmx-exit-clear-bndcfgs=23 vmx-exit-clear-rtit-ctl=25 vmx-exit-load-pkrs=29 "
        "vmx-exit-secondary-ctls=31",
    ),
    (
        "MSR(490h)",
        "vmx-entry-noload-debugctl=2 vmx-entry-ia32e-mode=9 "
        "vmx-entry-load-perf-global-ctrl=13 vmx-entry-load-pat=14 vmx-entry-load-efer=15 "
        "vmx-entry-load-bndcfgs=16 vmx-entry-load-rtit-ctl=18 vmx-entry-load-pkrs=22 "
        "vmx-entry-load-fred=23",
    ),
    (
        "MSR(485h)",
        "vmx-store-lma=5 vmx-activity-hlt=6 vmx-activity-shutdown=7 "
        "vmx-activity-wait-sipi=8 vmx-vmwrite-vmexit-fields=29 vmx-zero-len-inject=30",
    ),
    (
        "MSR(48Ch)",
        "vmx-ept-execonly=0 vmx-page-walk-4=6 vmx-page-walk-5=7 vmx-ept-2mb=16 "
        "vmx-ept-1gb=17 vmx-invept=20 vmx-eptad=21 vmx-ept-advanced-exitinfo=22 "
        "vmx-invept-single-context=25 vmx-invept-all-context=26 vmx-invvpid=32 "
        "vmx-invvpid-single-addr=40 vmx-invept-single-context=41 "
        "vmx-invvpid-all-context=42 vmx-invept-single-context-noglobals=43",
    ),
    ("MSR(480h)", "vmx-ins-outs=54 vmx-true-ctls=55 vmx-any-errcode=56 vmx-nested-exception=58"),
    ("MSR(491h)", "vmx-eptp-switching=0"),
    ("CPUID[eax=14h,ecx=00h].ECX", "intel-pt-lip=31"),
    ("CPUID[eax=12h,ecx=00h].EAX", "sgx1=0 sgx2=1 sgx-edeccssa=11"),
    ("CPUID[eax=12h,ecx=00h].EBX", "sgx-exinfo=0"),
    (
        "CPUID[eax=12h,ecx=01h].EAX",
        "sgx-debug=1 sgx-mode64=2 sgx-provisionkey=4 sgx-tokenkey=5 sgx-kss=7 sgx-aex-notify=10",
    ),
    (
        "CPUID[eax=07h,ecx=01h].EDX",
        "avx-vnni-int8=4 avx-ne-convert=5 amx-complex=8 avx-vnni-int16=10 prefetchiti=14 avx10=19",
    ),
    (
        "CPUID[eax=07h,ecx=02h].EDX",
        "intel-psfd=0 ipred-ctrl=1 rrsba-ctrl=2 ddpd-u=3 bhi-ctrl=4 mcdt-no=5",
    ),
    ("CPUID[eax=24h,ecx=00h].EBX", "avx10-128=16 avx10-256=17 avx10-512=18"),
)
"""The registers that tell of features, in QEMU's order and the words of 11.1; their features,
and the bits of these."""

_NEEDED = {
    "MSR(48Bh)": "vmx-secondary-ctls",
    "CPUID[eax=12h,ecx=00h].EAX": "sgx",
    "CPUID[eax=12h,ecx=00h].EBX": "sgx",
    "CPUID[eax=12h,ecx=01h].EAX": "sgx",
    "CPUID[eax=14h,ecx=00h].ECX": "intel-pt",
    "CPUID[eax=24h,ecx=00h].EBX": "avx10",
}
"""The feature without which those of a register are nothing; "vmx" of those of the other MSRs."""


class Lacking(NamedTuple):
    """What a processor is to have and has not.

    Attributes:
        nothing: features of features that it was not asked to have.
        emulated: those that are not emulated.
    """

    nothing: list[str]
    emulated: list[str]


def lacking(asked: Container[str], named: Container[str], compat: Compat) -> Lacking:
    """What a processor lacks, as QEMU names it.

    Args:
        asked: the features that it is to have and that are not emulated.
        named: those of them that a command line names; the others are its model's.
        compat: in whose words.
    """
    found = Lacking([], [])
    for word, name, bit in _places():
        if name not in asked:
            continue
        place = f"{word if compat is Compat.V11_1 else _in_10_0(word)}.{name} [bit {bit}]"
        needed = _NEEDED.get(word, "vmx" if name.startswith("vmx-") else None)
        is_nothing = name.startswith("vmx-") and "vmx" not in asked
        if is_nothing or (needed is not None and needed not in asked):
            if name in named:
                found.nothing.append(place)
        else:
            found.emulated.append(place)
    return found


def _places() -> Iterator[tuple[str, str, str]]:
    for word, features in _WORDS:
        for each in features.split():
            name, _equals, bit = each.partition("=")
            yield word, name, bit


def _in_10_0(word: str) -> str:
    """A register as QEMU 10.0 writes it."""
    word = re.sub(r"\[eax=(\w+)h.*\]\.", r".\1H:", word)
    return word.replace("h)", "H)")
