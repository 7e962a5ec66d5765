"""The texts of `memd --help` and `qemu-system-memd --help`."""

from __future__ import annotations

USAGE = """\
usage: memd [OPTION]...

Own memory backends of this host and serve them over QMP. Options are spelled as
those of qemu-storage-daemon and QEMU are; -x and --x are the same.

Where to serve:
  --qmp SPEC          serve QMP at an address; may be given many times:
                        unix:PATH       a UNIX socket (mode 0600)
                        unix:fd=N       a socket that was inherited
                        tcp:HOST:PORT   TCP; IPv6 as tcp:[::1]:4444
                        stdio           standard input and output
                      Sockets take, after a comma:
                        server=on       listen; off (the default): connect
                        wait=off        don't wait for a client at start
                        pretty=on       spread answers over lines
                        readonly=on     run queries only
                        allow-user=NAME, allow-group=NAME
                                        who may connect to this one
                        reconnect=S, reconnect-ms=MS
                                        connect again when it is lost
  --qmp-pretty SPEC   the same, with pretty=on
  --chardev SPEC      the long way, together with --mon:
                        socket,id=ID,path=PATH[,server=on][,wait=off]
                        socket,id=ID,fd=N[,server=on][,wait=off]
                        socket,id=ID,host=HOST,port=PORT[,server=on][,wait=off]
                            [,ipv4=on|off][,ipv6=on|off][,tls-creds=ID]
                        stdio,id=ID
                        null,id=ID
  --mon SPEC          serve QMP on a character device:
                        [chardev=]ID[,mode=control][,pretty=on][,readonly=on]
                            [,allow-user=NAME][,allow-group=NAME]
                      --monitor is the same
  --allow-user NAME, --allow-group NAME
                      who may connect to UNIX sockets besides root and memd's
                      own user: a name or number; may be given many times
  --insecure-tcp      allow TCP in clear that other machines reach: to be
                      served, and to send templates to

  Without any of them memd serves $XDG_RUNTIME_DIR/memd/qmp.sock, for root
  /run/memd/qmp.sock, and says so.

What there is at the start:
  --object SPEC       make an object; may be given many times:
                        TYPE,id=ID[,PROPERTY=VALUE]...
                        {"qom-type": "TYPE", "id": "ID", ...}
                        help            list the types
                        TYPE,help       list a type's properties
                      Sizes take k, M, G and T; a comma in a value is doubled;
                      lists are spelled host-nodes=0-1, or host-nodes.0=0,...
  --name NAME         what query-name answers
  --pool SPEC         make memory before it is asked for (docs/pools.md): as for
                      --object, but without an id, and with [,count=N]; may be
                      given many times
  --pool-reserve SIZE
                      host memory that this leaves free (default: 512M)
  --commit strict     refuse memory that could lack huge pages later, which ends
                      its users by SIGBUS (docs/choosing.md); default: off

A machine's memory, without CPUs and without a guest (docs/standing-in.md):
  --machine TYPE      q35, pc, virt or none (the default), which takes
                      [,nvdimm=on][,memory-backend=ID]; -M is the same
  -m SIZE[,slots=N][,maxmem=SIZE]
                      its memory, and how much can be plugged in
  --numa node[,nodeid=N][,cpus=FIRST-LAST][,memdev=ID]
                      a node of it, whose memory is a backend
  --smp N[,maxcpus=N] how many CPUs are told of
  --device TYPE[,id=ID],memdev=ID[,PROPERTY=VALUE]...
                      plug in a pc-dimm, nvdimm, virtio-mem-pci or
                      virtio-pmem-pci; may stand before its object
  --guest-reacts immediately|after=MS|never|refuses
                      what the guest that is not there does when it is asked
                      to take memory or to give it back

How to run:
  --daemonize         go on in the background once clients can connect
  --pidfile FILE      write the process id there, locked while memd runs
  --compat RELEASE    answer as QEMU 10.0 (the default) or 11.1 does
  --mem-root DIR      let clients' files be below DIR only; may be given often
  --allow-exec        let clients name commands to run: exec: of a migration,
                      which qemu-system-memd has
  --audit TARGET      record each command that is more than a query: "journal"
                      (the default where memd runs under it), "off", or a file
  --accept-loss       start although not all is there that the last daemon left
                      in the service manager's store (docs/restart.md)
  --metrics ADDRESS   serve metrics for Prometheus at unix:PATH or HOST:PORT
  --deny-private-discard
                      refuse to discard a range of a private mapping of a file:
                      that changes the file for everybody else

Templates of machines (docs/templating.md):
  --templates DIR     keep templates there; made if it is missing
  --template-source URL
                      where templates come from that are not there yet:
                      oci://HOST[:PORT]/REPOSITORY, http(s)://..., file:DIR;
                      may be given often
  --template-cache SIZE
                      keep at most so much of what was fetched and can be
                      fetched again (default: all)

What clients may take (docs/limits.md); sizes take k, M, G, T; 0 for no limit:
  --clients one|many  at a time on a monitor, as in QEMU or not (default: many)
  --max-clients N     connected at once (default: half of the descriptors that
                      memd may have)
  --max-clients-per-user N
                      those of one user (default: three quarters of those that
                      nobody else has; for root and memd's own user, all)
  --max-descriptors N
                      that clients have left, or were sent and have not read
                      (default: a quarter of those that memd may have)
  --max-descriptors-per-user N
                      those of one user's clients (default: half of those that
                      nobody else has; as above)
  --max-objects N     objects (default: 0)
  --max-memory SIZE   bytes of all memory backends together (default: 0)
  --max-memory-per-user SIZE
                      bytes of those that one user's clients made (default: 0)
  --max-message SIZE  one message: 64k to 64M, QEMU's limit (default: 24M)
  --max-tokens N      tokens (brackets, commas, strings, ...) of one message:
                      4096 to 2097152, QEMU's limit (default: 16384)
  --max-held-output SIZE
                      held for a client that does not read, before it is
                      disconnected (default: 64M)
  --max-held SIZE     held for all clients, unfinished messages and unread
                      answers, before the greatest is disconnected (512M)
  --negotiation-timeout SECONDS
                      until a client has to have negotiated (default: 0, never)

For tests of clients (docs/testing.md):
  --test-faults       have commands that make things go wrong (x-test-...)
  --test-control SPEC the same, with an address for these commands alone, where
                      nothing goes wrong; as --qmp

  --help, -h          print this
  --version, -V       print the version

Examples:
  memd --qmp unix:/run/vm/mem.sock,server=on,wait=off
  memd --object memory-backend-file,id=ram0,size=4G,mem-path=/dev/shm/vm
  memd --object memory-backend-ram,help

SIGTERM, SIGINT, SIGHUP and the command "quit" end memd with status 0; an option
that is wrong or an object that can't be made, with status 1.
"""

QEMU_USAGE = """\
usage: qemu-system-memd [OPTION]...

memd under a QEMU's options, for test harnesses and management software that
start one. -x and --x are the same.

Same effect as in QEMU:
  -qmp, -qmp-pretty, -monitor ADDRESS
  -chardev SPEC, -mon SPEC, -object SPEC, -name SPEC, -uuid UUID
  -pidfile FILE, -daemonize, -S, -preconfig, -msg timestamp=on|off, -add-fd fd=N,set=N
  -qtest ADDRESS, -qtest-log FILE, -readconfig FILE,
  -set OPTION.ID.KEY=VALUE
  -machine pc|q35|none|...[,accel=A[:B]...][,nvdimm=on][,memory-backend=ID] (default: pc)
  -accel A, -enable-kvm, -m SIZE[,slots=N][,maxmem=SIZE], -mem-path PATH, -mem-prealloc,
  -smp N, -numa SPEC
  -device pc-dimm|nvdimm|virtio-mem-pci|virtio-pmem-pci|pcie-root-port,...
  -incoming defer|URI|JSON
  -rtc SPEC, -no-shutdown, -no-reboot, -action SPEC, -watchdog-action ACTION
  -netdev SPEC, -blockdev SPEC, -drive SPEC, -cdrom, -fda, -fdb, -hda, -hdb,
  -hdc, -hdd and -pflash FILE, -snapshot, -vnc SPEC, -spice SPEC, -fsdev and -virtfs SPEC, -tpmdev
  emulator,..., -device of any type,
  -serial, -parallel, -debugcon and -gdb ADDRESS, -s, -usbdevice DEVICE,
  -nic, -net, -vga, -usb, which are registered and do nothing
  -nodefaults         no drives, ports, display adapter and network but those asked for
  -guest-reacts immediately|after=MS|never|refuses (memd's own)
  -mem-root DIR, -allow-exec (memd's own)
  -test-faults, -test-control ADDRESS (memd's own, see docs/testing.md)
  -clients one|many   at a time on a monitor (default: one; memd's own)
  -catalogue FILE     whose commands, types and models are offered (memd's own)
  -unmodelled refuse|sample  what commands get that memd only knows (memd's own)
  -compat 10.0|11.1   which QEMU to be; else its policies, which change nothing
  -help, -version, -object help, -machine help, -accel help

Without CPUs, disks or a screen to mean anything to, and so read over:
  -no-user-config, -nographic, -display, -audio, -audiodev, -boot, -sandbox,
  -cpu, -global, -k, -D, -d, -trace, -overcommit, -run-with, -kernel, -initrd,
  -append, -bios, -dtb, -smbios, -fw_cfg, -icount, -option-rom, -no-fd-bootchk,
  -win2k-hack

QEMU's other options are refused. See memd --help for the daemon's own.
"""
