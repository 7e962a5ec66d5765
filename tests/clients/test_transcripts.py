"""Command lines and commands of clients that no test can start: what they send is taken.

Written after what Kata, Proxmox, labgrid and os-autoinst are known to send, not recorded
of them; Kata's device strings were compared with its sources. What Incus 6.0.4 sends was
recorded, and only its paths, descriptors and accelerator are others here. The lines of lima,
Podman, Packer, Multipass and quickemu are those that their sources of 2026 put together.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need_shm
from tests.differential.server import qemu_system_memd, running

Step = tuple[str, dict[str, Any]]

# In the lines @DIR@ is the test's directory, and @NEXT@ no end of the line.

UNIX = {"type": "unix", "data": {"path": "@DIR@/socket"}}

KATA = """
-name sandbox-1,debug-threads=on -uuid 6f2d0a5e-3c1b-4b57-9c3c-0a4b1c2d3e4f
-machine q35,accel=tcg,nvdimm=on -cpu max,pmu=off
-m 2048M,slots=10,maxmem=4096M -smp 1,cores=1,threads=1,sockets=4,maxcpus=4
-device pci-bridge,bus=pcie.0,id=pci-bridge-0,chassis_nr=1,shpc=off,addr=2,@NEXT@
io-reserve=4k,mem-reserve=1m,pref64-reserve=1m
-device virtio-serial-pci,disable-modern=true,id=serial0
-device virtconsole,chardev=charconsole0,id=console0
-chardev socket,id=charconsole0,path=@DIR@/console.sock,server=on,wait=off
-device nvdimm,id=nv0,memdev=mem0,unarmed=on
-object memory-backend-file,id=mem0,mem-path=@DIR@/image,size=4194304,readonly=on
-device virtio-scsi-pci,id=scsi0,disable-modern=true
-object rng-random,id=rng0,filename=/dev/urandom
-device virtio-rng-pci,rng=rng0,disable-modern=true
-device vhost-vsock-pci,disable-modern=true,vhostfd=7,id=vsock-123,guest-cid=123
-chardev socket,id=char-fs,path=@DIR@/virtiofsd,server=on,wait=off
-device vhost-user-fs-pci,chardev=char-fs,tag=kataShared,queue-size=1024
-netdev tap,id=network-0,vhost=on,vhostfds=8,fds=9
-device driver=virtio-net-pci,netdev=network-0,mac=02:00:ca:fe:00:04,@NEXT@
disable-modern=true,mq=on,vectors=4
-rtc base=utc,driftfix=slew,clock=host -global kvm-pit.lost_tick_policy=discard
-vga none -no-user-config -nodefaults -nographic --no-reboot
-object memory-backend-file,id=dimm1,size=2048M,mem-path=/dev/shm,share=on -numa node,memdev=dimm1
-kernel @DIR@/image -append "console=hvc0 agent.log=debug" -pidfile @DIR@/pid
"""

KATA_STEPS: list[Step] = [
    ("query-hotpluggable-cpus", {}),
    ("query-cpus-fast", {}),
    (
        "blockdev-add",
        {
            "driver": "raw",
            "node-name": "drive-1",
            "file": {"driver": "file", "filename": "@DIR@/image"},
        },
    ),
    (
        "device_add",
        {
            "driver": "virtio-blk-pci",
            "id": "virtio-drive-1",
            "drive": "drive-1",
            "bus": "pci-bridge-0",
            "addr": "01",
            "share-rw": True,
        },
    ),
    ("getfd", {"fdname": "fd1"}),
    ("getfd", {"fdname": "vhost1"}),
    (
        "netdev_add",
        {"type": "tap", "id": "tap1", "vhost": True, "fds": "fd1", "vhostfds": "vhost1"},
    ),
    (
        "device_add",
        {
            "driver": "virtio-net-pci",
            "id": "virtio-tap1",
            "netdev": "tap1",
            "mac": "02:00:ca:fe:00:05",
            "bus": "pci-bridge-0",
            "addr": "02",
            "mq": True,
            "vectors": 4,
        },
    ),
    (
        "chardev-add",
        {
            "id": "char-1",
            "backend": {"type": "socket", "data": {"addr": UNIX, "server": True, "wait": False}},
        },
    ),
    ("chardev-remove", {"id": "char-1"}),
    ("object-add", {"qom-type": "memory-backend-ram", "id": "mem1", "size": 134217728}),
    ("device_add", {"driver": "pc-dimm", "id": "dimmmem1", "memdev": "mem1"}),
    ("query-memory-devices", {}),
    ("device_del", {"id": "virtio-tap1"}),
    ("netdev_del", {"id": "tap1"}),
    ("device_del", {"id": "virtio-drive-1"}),
    ("stop", {}),
    (
        "migrate-set-capabilities",
        {"capabilities": [{"capability": "x-ignore-shared", "state": True}]},
    ),
    ("migrate", {"uri": "file:@DIR@/state"}),
    ("query-migrate", {}),
    ("quit", {}),
]

PROXMOX = """
-name vm,debug-threads=on -no-shutdown
-chardev socket,id=qmp,path=@DIR@/100.qmp,server=on,wait=off -mon chardev=qmp,mode=control
-pidfile @DIR@/pid -smbios type=1,uuid=6f2d0a5e-3c1b-4b57-9c3c-0a4b1c2d3e4f
-smp 2,sockets=1,cores=2,maxcpus=2 -nodefaults -boot menu=on,strict=on,reboot-timeout=1000
-cpu kvm64,enforce,+kvm_pv_eoi,+kvm_pv_unhalt,+lahf_lm,+sep -m 512
-object iothread,id=iothread-virtioscsi0
-device pci-bridge,id=pci.1,chassis_nr=1,bus=pci.0,addr=0x1e
-device piix3-usb-uhci,id=uhci,bus=pci.0,addr=0x1.0x2
-device usb-tablet,id=tablet,bus=uhci.0,port=1
-device virtio-balloon-pci,id=balloon0,bus=pci.0,addr=0x3,free-page-reporting=on
-blockdev driver=raw,node-name=f0,file.driver=file,file.filename=@DIR@/image
-device virtio-scsi-pci,id=virtioscsi0,bus=pci.0,addr=0x5,iothread=iothread-virtioscsi0
-device scsi-hd,bus=virtioscsi0.0,channel=0,scsi-id=0,lun=0,drive=f0,id=scsi0,bootindex=100
-netdev type=tap,id=net0,ifname=tap100i0,script=no,downscript=no,vhost=on
-device virtio-net-pci,mac=BC:24:11:00:00:01,netdev=net0,bus=pci.0,addr=0x12,id=net0,bootindex=300
-machine type=pc
"""

PROXMOX_STEPS: list[Step] = [
    ("query-status", {}),
    (
        "qom-set",
        {
            "path": "machine/peripheral/balloon0",
            "property": "guest-stats-polling-interval",
            "value": 2,
        },
    ),
    ("qom-get", {"path": "machine/peripheral/balloon0", "property": "guest-stats"}),
    ("query-balloon", {}),
    ("balloon", {"value": 536870912}),
    ("human-monitor-command", {"command-line": "object_add memory-backend-ram,id=m1,size=64M"}),
    ("human-monitor-command", {"command-line": "device_del tablet"}),
    ("query-block", {}),
    ("query-blockstats", {}),
    ("query-pci", {}),
    ("set_link", {"name": "net0", "up": False}),
    ("getfd", {"fdname": "migrate"}),
    ("migrate-set-parameters", {"max-bandwidth": 9223372036853727232, "downtime-limit": 100}),
    ("migrate", {"uri": "fd:migrate"}),
    ("query-migrate", {}),
    ("system_powerdown", {}),
    ("quit", {}),
]

LABGRID = """
-display none -machine q35 -cpu qemu64 -m 64M -no-user-config -nodefaults -S
-chardev socket,id=serialsocket,path=@DIR@/serial -serial chardev:serialsocket
-nic user,model=virtio-net-pci
"""

LABGRID_STEPS: list[Step] = [
    ("cont", {}),
    ("query-status", {}),
    ("human-monitor-command", {"command-line": "info network"}),
    ("system_reset", {}),
    ("quit", {}),
]

OS_AUTOINST = """
-device virtio-vga -only-migratable -chardev ringbuf,id=serial0,logfile=@DIR@/serial0,logappend=on
-serial chardev:serial0 -audiodev none,id=snd0 -global isa-fdc.fdtypeA=none -m 512
-machine q35 -cpu qemu64 -netdev user,id=qanet0 -device virtio-net,netdev=qanet0,@NEXT@
mac=52:54:00:12:34:56
-object rng-random,filename=/dev/urandom,id=rng0 -device virtio-rng-pci,rng=rng0
-boot once=d -device qemu-xhci -device usb-tablet -smp 1 -S -display none
-device virtio-serial -chardev pipe,id=virtio_console,path=@DIR@/console,@NEXT@
logfile=@DIR@/vc,logappend=on
-device virtconsole,chardev=virtio_console,name=org.openqa.console.virtio_console
-chardev socket,path=@DIR@/qmp,server=on,wait=off,id=qmp_socket,logfile=@DIR@/qmp.log,logappend=on
-qmp chardev:qmp_socket
-device virtio-scsi-pci,id=scsi0
-blockdev driver=file,node-name=hd0-file,filename=@DIR@/image,cache.no-flush=on
-blockdev driver=raw,node-name=hd0,file=hd0-file,cache.no-flush=on,discard=unmap
-device virtio-blk,id=hd0-device,drive=hd0,serial=hd0
"""

OS_AUTOINST_STEPS: list[Step] = [
    ("query-status", {}),
    ("cont", {}),
    ("stop", {}),
    ("getfd", {"fdname": "dumpfd"}),
    (
        "migrate-set-capabilities",
        {"capabilities": [{"capability": "events", "state": True}]},
    ),
    ("migrate-set-parameters", {"max-bandwidth": 9223372036854775807}),
    ("migrate", {"uri": "fd:dumpfd"}),
    ("query-migrate", {}),
    ("system_powerdown", {}),
    ("quit", {}),
]

INCUS_CONFIG = """
[machine]
graphics = "off"
type = "q35"
accel = "tcg"
usb = "off"
[global]
driver = "ICH9-LPC"
property = "disable_s3"
value = "1"
[global]
driver = "ICH9-LPC"
property = "disable_s4"
value = "0"
[boot-opts]
strict = "on"
[memory]
size = "512M"
[smp-opts]
cpus = "1"
maxcpus = "2"
[object "mem0"]
qom-type = "memory-backend-memfd"
size = "512M"
share = "on"
[numa]
type = "node"
nodeid = "0"
memdev = "mem0"
[drive]
file = "@DIR@/image"
if = "pflash"
format = "raw"
unit = "0"
readonly = "on"
[drive]
file = "@DIR@/flash"
if = "pflash"
format = "raw"
unit = "1"
[chardev "monitor"]
backend = "socket"
path = "@DIR@/qemu.monitor"
server = "on"
wait = "off"
[mon]
chardev = "monitor"
mode = "control"
[chardev "console"]
backend = "ringbuf"
size = "1048576"
[device "qemu_vmcoreinfo"]
driver = "vmcoreinfo"
[device "qemu_pcie0"]
driver = "pcie-root-port"
bus = "pcie.0"
addr = "1.0"
chassis = "0"
multifunction = "on"
[device "qemu_balloon"]
driver = "virtio-balloon-pci"
bus = "qemu_pcie0"
addr = "00.0"
multifunction = "on"
[object "qemu_rng"]
qom-type = "rng-random"
filename = "/dev/urandom"
[device "dev-qemu_rng"]
driver = "virtio-rng-pci"
bus = "qemu_pcie0"
addr = "00.1"
rng = "qemu_rng"
[device "qemu_keyboard"]
driver = "virtio-keyboard-pci"
bus = "qemu_pcie0"
addr = "00.2"
[device "qemu_tablet"]
driver = "virtio-tablet-pci"
bus = "qemu_pcie0"
addr = "00.3"
[device "qemu_vsock"]
driver = "vhost-vsock-pci"
bus = "qemu_pcie0"
addr = "00.4"
guest-cid = "4171893779"
vhostfd = "7"
[device "dev-qemu_serial"]
driver = "virtio-serial-pci"
bus = "qemu_pcie0"
addr = "00.5"
[chardev "qemu_serial-chardev"]
backend = "ringbuf"
size = "16B"
[device "qemu_serial"]
driver = "virtserialport"
name = "org.linuxcontainers.incus"
chardev = "qemu_serial-chardev"
bus = "dev-qemu_serial.0"
[device "qemu_serial_legacy"]
driver = "virtserialport"
name = "org.linuxcontainers.lxd"
bus = "dev-qemu_serial.0"
[chardev "qemu_spice-chardev"]
backend = "spicevmc"
name = "vdagent"
[device "qemu_spice"]
driver = "virtserialport"
name = "com.redhat.spice.0"
chardev = "qemu_spice-chardev"
bus = "dev-qemu_serial.0"
[chardev "qemu_spicedir-chardev"]
backend = "spiceport"
name = "org.spice-space.webdav.0"
[device "qemu_spicedir"]
driver = "virtserialport"
name = "org.spice-space.webdav.0"
chardev = "qemu_spicedir-chardev"
bus = "dev-qemu_serial.0"
[device "qemu_usb"]
driver = "qemu-xhci"
bus = "qemu_pcie0"
addr = "00.6"
p2 = "8"
p3 = "8"
[chardev "qemu_spice-usb-chardev1"]
backend = "spicevmc"
name = "usbredir"
[device "qemu_spice-usb1"]
driver = "usb-redir"
chardev = "qemu_spice-usb-chardev1"
[chardev "qemu_spice-usb-chardev2"]
backend = "spicevmc"
name = "usbredir"
[device "qemu_spice-usb2"]
driver = "usb-redir"
chardev = "qemu_spice-usb-chardev2"
[chardev "qemu_spice-usb-chardev3"]
backend = "spicevmc"
name = "usbredir"
[device "qemu_spice-usb3"]
driver = "usb-redir"
chardev = "qemu_spice-usb-chardev3"
[device "qemu_pcie1"]
driver = "pcie-root-port"
bus = "pcie.0"
addr = "1.1"
chassis = "1"
[device "qemu_scsi"]
driver = "virtio-scsi-pci"
bus = "qemu_pcie1"
addr = "00.0"
[device "qemu_pcie2"]
driver = "pcie-root-port"
bus = "pcie.0"
addr = "1.2"
chassis = "2"
[fsdev "qemu_config"]
fsdriver = "local"
security_model = "none"
readonly = "on"
path = "@DIR@"
[device "dev-qemu_config-drive-9p"]
driver = "virtio-9p-pci"
bus = "qemu_pcie2"
addr = "00.0"
multifunction = "on"
mount_tag = "config"
fsdev = "qemu_config"
[device "qemu_pcie3"]
driver = "pcie-root-port"
bus = "pcie.0"
addr = "1.3"
chassis = "3"
[device "qemu_gpu"]
driver = "virtio-vga"
bus = "qemu_pcie3"
addr = "00.0"
[device "vmgenid0"]
driver = "vmgenid"
guid = "4f47e59b-8514-464c-8deb-84af6b38f6d0"
[device "qemu_pcie4"]
driver = "pcie-root-port"
bus = "pcie.0"
addr = "1.4"
chassis = "4"
[device "qemu_pcie5"]
driver = "pcie-root-port"
bus = "pcie.0"
addr = "1.5"
chassis = "5"
"""

INCUS = """
-S -name v1 -uuid ae078a69-1750-4ef6-8cc0-5b7f1cb199aa -cpu max,hv_passthrough -nographic
-serial chardev:console -nodefaults -no-user-config
-sandbox on,obsolete=deny,elevateprivileges=allow,spawn=allow,resourcecontrol=deny
-readconfig @DIR@/qemu.conf -spice unix=on,disable-ticketing=on,addr=@DIR@/qemu.spice
-pidfile @DIR@/pid -D @DIR@/qemu.log -smbios type=2,manufacturer=LinuxContainers,product=Incus
-run-with user=nobody
"""

INCUS_MIGRATION = {"transport": "socket", "type": "fd", "str": "migration"}

INCUS_STEPS: list[Step] = [
    ("qom-get", {"path": "/machine", "property": "type"}),
    ("query-hotpluggable-cpus", {}),
    (
        "device_add",
        {
            "core-id": 1,
            "driver": "max-x86_64-cpu",
            "id": "cpu010",
            "socket-id": 0,
            "thread-id": 0,
        },
    ),
    ("query-cpus-fast", {}),
    ("add-fd", {"fdset-id": 0, "opaque": "rdwr:incus_root"}),
    (
        "blockdev-add",
        {
            "aio": "io_uring",
            "cache": {"direct": False, "no-flush": False},
            "discard": "unmap",
            "driver": "file",
            "filename": "/dev/fdset/0",
            "locking": "off",
            "node-name": "incus_root",
            "read-only": False,
        },
    ),
    (
        "device_add",
        {
            "bootindex": 0,
            "bus": "qemu_scsi.0",
            "channel": 0,
            "device_id": "incus_root",
            "drive": "incus_root",
            "driver": "scsi-hd",
            "id": "dev-incus_root",
            "lun": 1,
            "serial": "incus_root",
        },
    ),
    ("system_reset", {}),
    ("set-action", {"panic": "pause", "reboot": "shutdown", "shutdown": "poweroff"}),
    ("cont", {}),
    ("query-status", {}),
    ("query-chardev", {}),
    ("ringbuf-read", {"device": "console", "size": 1048576, "format": "utf8"}),
    ("chardev-change", {"id": "console", "backend": {"type": "ringbuf", "data": {}}}),
    ("query-memory-size-summary", {}),
    ("query-balloon", {}),
    ("balloon", {"value": 268435456}),
    (
        "block_set_io_throttle",
        {
            "id": "dev-incus_root",
            **dict.fromkeys(("bps", "bps_wr", "iops", "iops_rd"), 0),
            "bps_rd": 10000000,
            "iops_wr": 100,
        },
    ),
    ("query-blockstats", {}),
    ("query-pci", {}),
    ("stop", {}),
    ("getfd", {"fdname": "migration"}),
    ("migrate", {"channels": [{"channel-type": "main", "addr": INCUS_MIGRATION}]}),
    ("query-migrate", {}),
    ("query-fdsets", {}),
    ("remove-fd", {"fdset-id": 0}),
    ("quit", {}),
]

LIMA = """
-m 512 -cpu max -machine q35,vmport=off -accel tcg,thread=multi,tb-size=512
-global ICH9-LPC.disable_s3=1 -global ICH9-LPC.disable_s4=1 -smp 4,sockets=1,cores=4,threads=1
-drive if=pflash,format=raw,readonly=on,file=@DIR@/flash -device qemu-xhci,id=usb-bus
-drive file=@DIR@/image,if=none,discard=on,id=boot-disk
-device virtio-blk-pci,drive=boot-disk,bootindex=1 -boot order=c,splash-time=0,menu=on
-drive id=cdrom0,if=none,format=raw,readonly=on,file=@DIR@/iso -device virtio-scsi,id=scsi0
-device scsi-cd,bus=scsi0.0,drive=cdrom0
-netdev user,id=net0,net=192.168.5.0/24,dhcpstart=192.168.5.15,hostfwd=tcp:127.0.0.1:60022-:22
-device virtio-net-pci,netdev=net0,mac=52:55:55:0d:2f:a2 -device virtio-rng-pci -display none
-device virtio-vga -device virtio-keyboard-pci -device virtio-mouse-pci -parallel none
-chardev socket,id=char-serial,path=@DIR@/serial.sock,server=on,wait=off,logfile=@DIR@/serial.log
-serial chardev:char-serial
-chardev socket,id=char-serial-virtio,path=@DIR@/virtio.sock,server=on,wait=off,@NEXT@
logfile=@DIR@/virtio.log -device virtio-serial-pci,id=virtio-serial0,max_ports=1
-device virtconsole,chardev=char-serial-virtio,id=console0
-virtfs local,mount_tag=mount0,path=@DIR@,security_model=none,readonly=on
-chardev socket,id=char-qmp,path=@DIR@/lima.qmp,server=on,wait=off -qmp chardev:char-qmp
-chardev socket,path=@DIR@/ga.sock,server=on,wait=off,id=qga0 -device virtio-serial
-device virtserialport,chardev=qga0,name=io.lima-vm.guest_agent.0 -name lima-default
-pidfile @DIR@/pid
"""

LIMA_STEPS: list[Step] = [
    ("query-vnc", {}),
    ("human-monitor-command", {"command-line": "info snapshots "}),
    ("system_powerdown", {}),
]

PODMAN = """
-m 512 -smp 2 -fw_cfg name=opt/com.coreos/config,file=@DIR@/image
-qmp unix:@DIR@/podman.qmp,server=on,wait=off
-netdev stream,id=vlan,server=off,addr.type=unix,addr.path=@DIR@/gvproxy.sock
-device virtio-net-pci,netdev=vlan,mac=5a:94:ef:e4:0c:ee -device virtio-serial
-chardev socket,path=@DIR@/ready.sock,server=on,wait=off,id=adefault_ready
-device virtserialport,chardev=adefault_ready,name=org.fedoraproject.port.0 -pidfile @DIR@/pid
-object memory-backend-memfd,id=mem,size=512M,share=on -accel tcg -cpu max -M memory-backend=mem
-drive if=virtio,file=@DIR@/image -device qemu-xhci
-device usb-host,vendorid=1133,productid=49948 -display none
"""

PODMAN_STEPS: list[Step] = [("query-status", {}), ("system_powerdown", {})]

PACKER = """
-boot once=d -name packer -machine type=pc,accel=tcg
-netdev user,id=user.0,hostfwd=tcp::2222-:22 -vnc unix:@DIR@/vnc -m 512M -smp 1
-fda @DIR@/image -device virtio-net,netdev=user.0
-drive file=@DIR@/iso,if=virtio,cache=writeback,discard=ignore,format=raw
-drive file=@DIR@/flash,media=cdrom -display none
"""

PACKER_STEPS: list[Step] = [("query-status", {}), ("query-block", {}), ("quit", {})]

MULTIPASS = """
-L /usr/share/qemu -drive file=@DIR@/flash,if=pflash,format=raw,readonly=on,file.locking=off
-accel tcg -cpu max
-nic tap,ifname=tap-1,script=no,downscript=no,model=virtio-net-pci,mac=52:54:00:11:22:33
-nic bridge,br=br0,model=virtio-net-pci,mac=52:54:00:11:22:34,helper=./bridge_helper
-device virtio-scsi-pci,id=scsi0 -drive file=@DIR@/image,if=none,format=raw,discard=unmap,id=hda
-device scsi-hd,drive=hda,bus=scsi0.0 -smp 2 -m 512M -chardev null,id=char0
-serial chardev:char0 -nographic -cdrom @DIR@/iso -uuid 6f2d0a5e-3c1b-4b57-9c3c-0a4b1c2d3e4f
-virtfs local,security_model=passthrough,path=@DIR@,mount_tag=m1
"""

MULTIPASS_STEPS: list[Step] = [
    ("human-monitor-command", {"command-line": "delvm suspend"}),
    ("system_powerdown", {}),
]

QUICKEMU = """
-name vm,process=vm,debug-threads=on -accel tcg,tb-size=2048,thread=multi
-machine q35,smm=off,vmport=off -cpu qemu64,+avx,-pcid -smp cores=2,threads=2,sockets=1 -m 512M
-device virtio-balloon -pidfile @DIR@/pid -rtc base=utc,clock=host
-device virtio-vga,xres=1280,yres=800 -display none -device virtio-rng-pci,rng=rng0
-object rng-random,id=rng0,filename=/dev/urandom -device pci-ohci,id=smartpass -device usb-ccid
-device usb-ehci,id=input -device usb-kbd,bus=input.0 -k en-us -device usb-tablet,bus=input.0
-audiodev none,id=audio0 -device intel-hda -device hda-micro,audiodev=audio0
-device virtio-net-pci,netdev=nic -netdev user,hostname=vm,hostfwd=tcp::22220-:22,@NEXT@
hostfwd=tcp::8080-:80,id=nic
-global driver=cfi.pflash01,property=secure,value=on
-drive if=pflash,format=raw,unit=0,file=@DIR@/flash,readonly=on
-drive media=cdrom,index=0,file=@DIR@/iso -device virtio-blk-pci,drive=SystemDisk
-drive id=SystemDisk,if=none,format=raw,file=@DIR@/image,discard=unmap,detect-zeroes=unmap,@NEXT@
cache=writeback,aio=threads -fsdev local,id=fsdev0,path=@DIR@,security_model=mapped-xattr
-device virtio-9p-pci,fsdev=fsdev0,mount_tag=Public
-monitor unix:@DIR@/monitor.sock,server,nowait -serial unix:@DIR@/ttyS0.sock,server,nowait
"""


@pytest.mark.parametrize(
    ("line", "steps"),
    [
        pytest.param(KATA, KATA_STEPS, id="Kata", marks=need_shm),
        pytest.param(PROXMOX, PROXMOX_STEPS, id="Proxmox"),
        pytest.param(LABGRID, LABGRID_STEPS, id="labgrid"),
        pytest.param(OS_AUTOINST, OS_AUTOINST_STEPS, id="os-autoinst"),
        pytest.param(INCUS, INCUS_STEPS, id="Incus"),
        pytest.param(LIMA, LIMA_STEPS, id="lima"),
        pytest.param(PODMAN, PODMAN_STEPS, id="Podman"),
        pytest.param(PACKER, PACKER_STEPS, id="Packer"),
        pytest.param(MULTIPASS, MULTIPASS_STEPS, id="Multipass"),
        pytest.param(QUICKEMU, PODMAN_STEPS, id="quickemu"),
    ],
)
def test_what_clients_send(directory: Path, line: str, steps: list[Step]) -> None:
    for name in ("image", "flash", "iso"):
        (directory / name).write_bytes(bytes(4 << 20))
    (directory / "qemu.conf").write_text(INCUS_CONFIG.replace("@DIR@", str(directory)))
    for name in ("console.in", "console.out"):
        os.mkfifo(directory / name)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(directory / "serial"))
    listening.listen()
    # What a shell opens is handed on to what it runs.
    shell = ["sh", "-c", 'exec "$0" "$@" 7<>/dev/null 8<>/dev/null 9<>/dev/null']
    words = shlex.split(line.replace("@NEXT@\n", "").replace("@DIR@", str(directory)))
    argv = [*shell, *qemu_system_memd(), *words]
    with listening, running("memd", argv, directory) as server:
        monitor = server.monitor()
        for command, arguments in steps:
            text = json.dumps({"execute": command, "arguments": arguments})
            request = text.replace("@DIR@", str(directory)).encode()
            given = {"getfd": Path("/dev/null"), "add-fd": directory / "image"}.get(command)
            if given is not None:
                with given.open("r+b") as file:
                    monitor.send(request, [file.fileno()])
            else:
                monitor.send(request)
            answer = monitor.read_answer()
            assert "return" in answer, (command, arguments, answer)
        assert server.wait() == 0
