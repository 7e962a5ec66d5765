"""What `memd --help` and `qemu-system-memd --help` print."""

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
                        [chardev=]ID[,mode=control][,pretty=on]
                      --monitor is the same
  --insecure-tcp      allow TCP that other machines reach to be served in clear

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

How to run:
  --daemonize         go on in the background once clients can connect
  --pidfile FILE      write the process id there, locked while memd runs
  --compat RELEASE    answer as QEMU 10.0 (the default) or 11.1 does
  --deny-private-discard
                      refuse to discard a range of a private mapping of a file:
                      that changes the file for everybody else

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

memd under the options of a QEMU that has no machine, for test harnesses and
management software that start one. -x and --x are the same.

Heeded:
  -qmp, -qmp-pretty, -monitor ADDRESS
  -chardev SPEC, -mon SPEC, -object SPEC, -name SPEC, -uuid UUID
  -pidfile FILE, -daemonize, -S, -preconfig, -msg timestamp=on|off
  -qtest ADDRESS, -qtest-log FILE
  -machine none[,accel=A[:B]...], -accel A, -enable-kvm
  -compat 10.0|11.1   which QEMU to be; else its policies, which change nothing
  -help, -version, -object help, -machine help, -accel help

Without a machine to mean anything to, and so read over:
  -no-user-config, -nodefaults, -nographic, -no-shutdown, -no-reboot, -display,
  -vga, -audio, -audiodev, -boot, -rtc, -sandbox, -m, -smp, -cpu, -global, -k,
  -D, -d, -trace, -overcommit, -action, -usb, and, where their argument is none,
  -serial, -parallel, -net, -nic

QEMU's other options are refused. See memd --help for the daemon's own.
"""
