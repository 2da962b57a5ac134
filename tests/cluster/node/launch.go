package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// What a container's process needs to know, as JSON in a file that only root reads.
type plan struct {
	Command  []string
	Env      []string
	Dir      string
	Folder   string
	ReadOnly bool
	Mounts   []mount
	UID, GID int
	Groups   []int
	// What a cluster's DNS would tell a pod of a Job: the name of the pod with index 0. All pods are on this machine.
	Host string
}

type mount struct {
	Source, Target string
	ReadOnly       bool
}

// Starts a container's process: this program, which prepares a file system and then becomes the container's program. The channel gets
// why that failed, or nothing.
func launch(p *plan, folder string, output *output) (*exec.Cmd, <-chan string, error) {
	p.Folder = folder
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, nil, err
	}
	if p.Host != "" {
		hosts, err := writeHosts(folder, p.Host)
		if err != nil {
			return nil, nil, err
		}
		p.Mounts = append(p.Mounts, mount{Source: hosts, Target: "/etc/hosts", ReadOnly: true})
	}
	text, err := json.Marshal(p)
	if err != nil {
		return nil, nil, err
	}
	file := filepath.Join(folder, "plan.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, nil, err
	}
	failures, failure, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer failure.Close()
	command := exec.Command("/proc/self/exe", "container", file)
	command.Env = []string{}
	command.ExtraFiles = []*os.File{failure}
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := output.attach(command); err != nil {
		return nil, nil, err
	}
	err = command.Start()
	output.started()
	if err != nil {
		return nil, nil, err
	}
	told := make(chan string, 1)
	go func() {
		defer failures.Close()
		text, _ := io.ReadAll(failures)
		told <- string(text)
	}()
	return command, told, nil
}

// The machine's own hosts and one more, on loopback.
func writeHosts(folder, name string) (string, error) {
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil {
		return "", err
	}
	file := filepath.Join(folder, "hosts")
	return file, os.WriteFile(file, append(hosts, "\n127.0.0.1 "+name+"\n"...), 0o644)
}

// The container's side of `launch`; never returns.
func enterContainer(file string) {
	runtime.LockOSThread()
	failure := os.NewFile(3, "failure")
	unix.CloseOnExec(3)
	err := becomeProgram(file)
	fmt.Fprint(failure, err)
	os.Exit(128)
}

func becomeProgram(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var p plan
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	if err := layFileSystem(p); err != nil {
		return err
	}
	if err := os.Chdir(p.Dir); err != nil {
		return err
	}
	if err := syscall.Setgroups(p.Groups); err != nil {
		return err
	}
	if err := syscall.Setgid(p.GID); err != nil {
		return err
	}
	if err := syscall.Setuid(p.UID); err != nil {
		return err
	}
	// The change of user has cleared it.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	for _, variable := range p.Env {
		if path, found := strings.CutPrefix(variable, "PATH="); found {
			os.Setenv("PATH", path)
		}
	}
	program, err := exec.LookPath(p.Command[0])
	if err != nil {
		return err
	}
	return &os.PathError{Op: "exec", Path: program, Err: syscall.Exec(program, p.Command, p.Env)}
}

// Lays a writable layer of this container's own over the machine's files, with its volumes in it. All of it is in the mount namespace
// of the container, and vanishes with it.
func layFileSystem(p plan) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	layer := filepath.Join(p.Folder, "layer")
	if err := os.MkdirAll(layer, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", layer, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	upper, work, root := filepath.Join(layer, "upper"), filepath.Join(layer, "work"), filepath.Join(layer, "root")
	for _, folder := range []string{upper, work, root} {
		if err := os.Mkdir(folder, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("overlay", root, "overlay", 0, fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s", upper, work)); err != nil {
		return fmt.Errorf("overlay: %w", err)
	}
	for _, shared := range []string{"/proc", "/dev", "/sys"} {
		if err := unix.Mount(shared, filepath.Join(root, shared), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("%s: %w", shared, err)
		}
	}
	for _, mount := range p.Mounts {
		if err := bind(mount.Source, filepath.Join(root, mount.Target), mount.ReadOnly); err != nil {
			return fmt.Errorf("volume at %s: %w", mount.Target, err)
		}
	}
	if p.ReadOnly {
		if err := unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("read-only root: %w", err)
		}
	}
	return unix.Chroot(root)
}

func bind(source, target string, readOnly bool) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
		err = os.WriteFile(target, nil, 0o644)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if !readOnly {
		return nil
	}
	return unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
}
