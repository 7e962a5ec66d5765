"""The texts of `memd --help` and `qemu-system-memd --help`."""

from __future__ import annotations

USAGE = """\
usage: memd [OPTION]...

Own memory backends of this host and serve them over QMP. Options are spelled as
in QEMU and qemu-storage-daemon; -x and --x are the same.

Where to serve:
  --qmp SPEC          serve QMP at an address; repeatable:
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
                        [chardev=]ID[,mode=control|readline][,pretty=on]
                            [,readonly=on][,allow-user=NAME][,allow-group=NAME]
                      readline: the human monitor; --monitor is the same
  --allow-user NAME, --allow-group NAME
                      who may connect to UNIX sockets besides root and memd's
                      own user: a name or number; repeatable
  --insecure-tcp      allow TCP in clear to and from other machines: to serve
                      QMP, and to send templates

  Without any of them memd serves $XDG_RUNTIME_DIR/memd/qmp.sock, for root
  /run/memd/qmp.sock, and says so.

What there is at the start:
  --object SPEC       make an object; repeatable:
                        TYPE,id=ID[,PROPERTY=VALUE]...
                        {"qom-type": "TYPE", "id": "ID", ...}
                        help            list the types
                        TYPE,help       list a type's properties
                      Sizes take k, M, G and T; a comma in a value is doubled;
                      lists are spelled host-nodes=0-1, or host-nodes.0=0,...
  --name NAME         what query-name answers
  --pool SPEC         allocate memory ahead of object-add (docs/pools.md): as
                      for --object, but without an id, and with [,count=N];
                      repeatable
  --pool-reserve SIZE
                      host memory that refilling leaves free (default: 512M)
  --commit strict|off
                      strict: refuse memory that may lack huge pages later,
                      which ends its users by SIGBUS (docs/choosing.md);
                      default: off

The memory side of a machine, without a guest (docs/memory-devices.md):
  --machine TYPE[,nvdimm=on][,memory-backend=ID]
                      pc, q35, virt or another (help lists them); default:
                      none; -M is the same
  -m SIZE[,slots=N][,maxmem=SIZE]
                      its memory, and how much can be plugged in
  --numa node[,nodeid=N][,cpus=FIRST-LAST][,memdev=ID]
                      a node of it, whose memory is a backend
  --smp N[,maxcpus=N] how many CPUs are reported
  --device TYPE[,id=ID],memdev=ID[,PROPERTY=VALUE]...
                      plug in a pc-dimm, nvdimm, virtio-mem-pci or
                      virtio-pmem-pci; may stand before its object
  --guest-reacts immediately|after=MS|never|refuses
                      how the simulated guest reacts when it is asked to take
                      memory or to give it back

How to run:
  --daemonize         go on in the background once clients can connect
  --pidfile FILE      write the process id there, locked while memd runs
  --compat RELEASE    answer as QEMU 10.0 (the default) or 11.1 does
  --mem-root DIR      let clients name files below DIR only; repeatable
  --allow-exec        let clients name commands to run (exec: of a migration of
                      qemu-system-memd)
  --audit TARGET      record each command that is not a query: "journal" (the
                      default where memd runs under it), "off", or a file
  --accept-loss       start even if some of the kept objects can't be restored
                      (docs/restart.md)
  --metrics ADDRESS   serve metrics for Prometheus at unix:PATH or HOST:PORT
  --deny-private-discard
                      refuse to discard a range of a private mapping of a file,
                      which changes the file for others

Templates of machines (docs/templating.md):
  --templates DIR     the store of templates; made if it is missing
  --template-source URL
                      where templates are fetched from that the store lacks:
                      oci://HOST[:PORT]/REPOSITORY, http(s)://..., file:DIR;
                      repeatable
  --template-cache SIZE
                      how much to keep of what was fetched from a source
                      (default: all)

Limits for clients (docs/limits.md); sizes take k, M, G, T; 0 for no limit:
  --clients one|many  clients at a time on a socket; QEMU serves one (default:
                      many)
  --max-clients N     connected at once (default: half of the descriptors that
                      memd may have)
  --max-clients-per-user N
                      those of one user (default: three quarters of what nobody
                      else has; for root and memd's own user, all)
  --max-descriptors N
                      held for clients (getfd, add-fd), or sent to them and not
                      read (default: a quarter of those that memd may have)
  --max-descriptors-per-user N
                      those of one user's clients (default: half of what nobody
                      else has; for root and memd's own user, all)
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
                      answers, before the client with the most is disconnected
                      (default: 512M)
  --negotiation-timeout SECONDS
                      in which a client has to negotiate (default: 0)

For tests of clients (docs/testing.md):
  --test-faults       allow fault injection (the commands x-test-...)
  --test-control SPEC the same, by these commands on a socket of their own, into
                      which no faults are injected; SPEC is as for --qmp

  --help, -h          print this
  --version, -V       print the version

Examples:
  memd --qmp unix:/run/vm/mem.sock,server=on,wait=off
  memd --object memory-backend-file,id=ram0,size=4G,mem-path=/dev/shm/vm
  memd --object memory-backend-ram,help

SIGTERM, SIGINT, SIGHUP and the command "quit" end memd with status 0, a wrong
option or an object that can't be made with status 1.

The docs/ that are named here are in share/doc/memd, below the prefix that memd
is installed in.
"""

QEMU_USAGE = """\
usage: qemu-system-memd [OPTION]...

memd under a QEMU's options, for test harnesses and management software that
start one. -x and --x are the same.

Same effect as in QEMU:
  -qmp, -qmp-pretty, -monitor ADDRESS
  -chardev SPEC, -mon SPEC, -object SPEC, -name SPEC, -uuid UUID
  -pidfile FILE, -daemonize, -S, -preconfig, -msg timestamp=on|off,
  -add-fd fd=N,set=N
  -qtest ADDRESS, -qtest-log FILE, -readconfig FILE, -set OPTION.ID.KEY=VALUE
  -machine pc|q35|none|...[,accel=A[:B]...][,nvdimm=on][,memory-backend=ID]
                      (default: pc)
  -accel A, -enable-kvm, -m SIZE[,slots=N][,maxmem=SIZE], -mem-path PATH,
  -mem-prealloc, -smp N, -numa SPEC
  -device pc-dimm|nvdimm|virtio-mem-pci|virtio-pmem-pci|pcie-root-port,...
  -incoming defer|URI|JSON, -loadvm TAG, -only-migratable, -dump-vmstate FILE
  -rtc SPEC, -no-shutdown, -no-reboot, -action SPEC, -watchdog-action ACTION
  -nodefaults         only the drives, ports, display adapter and network that
                      the command line names
  -help, -version, -object help, -machine help, -accel help

Registered; what works of them is listed in docs/standing-in.md:
  -netdev SPEC, -blockdev SPEC, -drive SPEC, -cdrom, -fda, -fdb, -hda, -hdb,
  -hdc, -hdd and -pflash FILE, -snapshot, -vnc SPEC, -spice SPEC,
  -fsdev and -virtfs SPEC, -tpmdev emulator,..., -device of any type,
  -serial, -parallel, -debugcon and -gdb ADDRESS, -s, -usbdevice DEVICE,
  -nic, -net, -vga, -usb, -audio, -audiodev

Checked; what has an effect is listed in docs/standing-in.md:
  -cpu, -global, -boot, -display, -run-with, -smbios, -fw_cfg, -icount,
  -option-rom, -kernel, -initrd, -append, -shim, -bios, -dtb, -L

memd's own:
  -guest-reacts immediately|after=MS|never|refuses
                      how the simulated guest reacts
  -mem-root DIR       let clients name files below DIR only
  -allow-exec         let clients name commands to run (exec: of a migration)
  -clients one|many   clients at a time on a socket (default: one)
  -catalogue FILE     whose commands, types and models are offered
  -unmodelled refuse|sample
                      how to answer commands that memd does not implement
                      (default: refuse)
  -compat 10.0|11.1   the QEMU to answer as; QEMU's own policies of -compat are
                      accepted, without effect
  -test-faults, -test-control ADDRESS
                      fault injection (docs/testing.md)

Accepted, without effect:
  -no-user-config, -nographic, -sandbox, -k, -D, -d, -trace, -overcommit,
  -seed, -full-screen, -no-fd-bootchk, -win2k-hack

QEMU's other options are refused. See memd --help for the daemon's own, and
where the docs/ are.
"""
