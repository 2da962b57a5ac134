package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// One container: a process group on this machine, with a file system of its own laid over the machine's.
type container struct {
	pod    *runningPod
	spec   core.Container
	isInit bool
	output *output

	command *exec.Cmd
	// Why the program could not be started.
	failure    string
	begun      bool
	running    bool
	restarting bool
	restarts   int32
	startedAt  meta.Time
	finishedAt meta.Time
	exitCode   int32
	// Why it waits or ended, as runtimes name it.
	reason, message string
}

func newContainer(pod *runningPod, spec core.Container, isInit bool) *container {
	return &container{pod: pod, spec: spec, isInit: isInit, reason: "ContainerCreating", output: newOutput(pod.folder(), spec.Name)}
}

// Starts the process; `ended` gets the container when it is over, also if the program cannot be started.
func (c *container) start(ctx context.Context, ended chan<- *container) {
	c.restarting, c.failure = false, ""
	plan, err := c.plan(ctx)
	if err != nil {
		// Stays waiting, as a kubelet lets it.
		c.reason, c.message = "CreateContainerConfigError", err.Error()
		return
	}
	c.begun, c.running, c.startedAt, c.reason, c.message = true, true, meta.Now(), "", ""
	command, failure, err := launch(plan, filepath.Join(c.pod.folder(), c.spec.Name), c.output)
	if err != nil {
		c.failure = err.Error()
		go func() { ended <- c }()
		return
	}
	c.command = command
	go func() {
		_ = command.Wait()
		// A container ends with its first process; and all of its output is there once it counts as terminated.
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
		c.output.drain()
		c.failure = <-failure
		ended <- c
	}()
}

func (c *container) bury() {
	c.running, c.finishedAt = false, meta.Now()
	if c.failure != "" {
		// As containerd reports a program that cannot be started.
		c.exitCode, c.reason, c.message = 128, "StartError", c.failure
		return
	}
	state := c.command.ProcessState.Sys().(syscall.WaitStatus)
	c.exitCode = int32(state.ExitStatus())
	if state.Signaled() {
		c.exitCode = 128 + int32(state.Signal())
	}
	c.reason = "Completed"
	if c.exitCode != 0 {
		c.reason = "Error"
	}
}

func (c *container) signal(kill bool) {
	if !c.running || c.command == nil {
		return
	}
	if kill {
		_ = syscall.Kill(-c.command.Process.Pid, syscall.SIGKILL)
	} else {
		_ = syscall.Kill(c.command.Process.Pid, syscall.SIGTERM)
	}
}

func (c *container) shouldRestart(policy core.RestartPolicy) bool {
	return policy == core.RestartPolicyAlways && !c.isInit || policy == core.RestartPolicyOnFailure && c.exitCode != 0
}

// A second later, then ever later up to a minute.
func (c *container) restartSoon(ctx context.Context) {
	c.restarting = true
	c.restarts++
	pause := min(time.Second<<min(c.restarts, 6), time.Minute)
	go func() {
		select {
		case <-time.After(pause):
			select {
			case c.pod.due <- c:
			case <-c.pod.forgotten:
			}
		case <-ctx.Done():
		case <-c.pod.forgotten:
		}
	}()
}

func (c *container) status() core.ContainerStatus {
	status := core.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: "process", RestartCount: c.restarts, Ready: c.running,
	}
	over := &core.ContainerStateTerminated{
		ExitCode: c.exitCode, Reason: c.reason, Message: c.message, StartedAt: c.startedAt, FinishedAt: c.finishedAt,
	}
	switch {
	case c.running:
		status.State.Running = &core.ContainerStateRunning{StartedAt: c.startedAt}
		started := true
		status.Started = &started
	case c.restarting:
		status.State.Waiting = &core.ContainerStateWaiting{Reason: "CrashLoopBackOff"}
		status.LastTerminationState.Terminated = over
	case c.begun:
		status.State.Terminated = over
	default:
		status.State.Waiting = &core.ContainerStateWaiting{Reason: c.reason, Message: c.message}
	}
	return status
}
