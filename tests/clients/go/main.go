// A client by go-qemu: what it is told, a line each.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/digitalocean/go-qemu/qemu"
	"github.com/digitalocean/go-qemu/qmp"
)

func main() {
	monitor, err := qmp.NewSocketMonitor("unix", os.Args[1], 5*time.Second)
	check(err)
	check(monitor.Connect())
	domain, err := qemu.NewDomain(monitor, "vm")
	check(err)
	events, stop, err := domain.Events()
	check(err)
	// Who does not take events as they come hangs.
	seen := make(chan string, 100)
	go func() {
		for event := range events {
			seen <- event.Event
		}
	}()
	status, err := domain.Status()
	fmt.Println("status", status, err)
	version, err := domain.Version()
	fmt.Println("version", version, err)
	commands, err := domain.Commands()
	fmt.Println("commands", len(commands) > 200, err)
	ok, err := domain.Supported("migrate")
	fmt.Println("migrate", ok, err)
	disks, err := domain.BlockDevices()
	fmt.Println("disks", len(disks), err)
	jobs, err := domain.BlockJobs()
	fmt.Println("jobs", len(jobs), err)
	stats, err := domain.BlockStats()
	fmt.Println("stats", len(stats), err)
	pci, err := domain.PCIDevices()
	fmt.Println("pci", len(pci) > 3, err)
	cpus, err := domain.CPUs()
	fmt.Println("cpus", len(cpus), err)
	answer, err := domain.Run(qmp.Command{Execute: "migrate", Args: map[string]string{"uri": "unix:/nonexistent/x"}})
	fmt.Println("migrate", string(answer), err)
	answer, err = domain.Run(qmp.Command{Execute: "nope"})
	fmt.Println("nope", string(answer), err)
	fmt.Println("reset", domain.SystemReset())
	fmt.Println("powerdown", domain.SystemPowerdown())
	for range []string{"RESET", "POWERDOWN"} {
		select {
		case name := <-seen:
			fmt.Println("event", name)
		case <-time.After(20 * time.Second):
			fmt.Println("no event")
		}
	}
	close(stop)
	fmt.Println("closed", domain.Close())
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
