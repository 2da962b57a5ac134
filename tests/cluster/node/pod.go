package main

import (
	"context"
	"log"
	"os"
	"path/filepath"
	"sync"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// One pod, from its binding to its end. All that happens to it happens in `live`.
type runningPod struct {
	pods  *pods
	first *core.Pod
	news  chan *core.Pod
	// Closed when the pod is no more in the API.
	forgotten chan struct{}
	once      sync.Once

	// Containers whose pause before a restart is over.
	due        chan *container
	started    meta.Time
	address    string
	containers []*container
	volumes    map[string]string
	// Why nothing could be started, or why it was ended.
	reason, message string
	failed          bool
}

func newRunningPod(pods *pods, pod *core.Pod) *runningPod {
	p := &runningPod{
		pods: pods, first: pod, started: meta.Now(), address: pods.nextAddress(),
		news: make(chan *core.Pod, 1), forgotten: make(chan struct{}), due: make(chan *container),
	}
	for _, spec := range pod.Spec.InitContainers {
		p.containers = append(p.containers, newContainer(p, spec, true))
	}
	for _, spec := range pod.Spec.Containers {
		p.containers = append(p.containers, newContainer(p, spec, false))
	}
	return p
}

// Only the newest state counts.
func (p *runningPod) tell(pod *core.Pod) {
	select {
	case <-p.news:
	default:
	}
	p.news <- pod
}

func (p *runningPod) forget() { p.once.Do(func() { close(p.forgotten) }) }

func (p *runningPod) folder() string { return filepath.Join(p.pods.own.root, string(p.first.UID)) }

func (p *runningPod) output(name string) *output {
	for _, container := range p.containers {
		if container.spec.Name == name {
			return container.output
		}
	}
	return nil
}

func (p *runningPod) live(ctx context.Context) {
	defer os.RemoveAll(p.folder())
	ended := make(chan *container)
	p.advance(ctx, ended)
	p.report(ctx)
	var kill <-chan time.Time
	var deadline <-chan time.Time
	ending, deleted := false, false
	end := func(grace int64) {
		if !ending {
			ending = true
			p.signalAll(false)
		}
		kill = time.After(time.Duration(grace) * time.Second)
	}
	retry := time.NewTicker(2 * time.Second)
	defer retry.Stop()
	for {
		select {
		case pod := <-p.news:
			if seconds := pod.Spec.ActiveDeadlineSeconds; seconds != nil {
				deadline = time.After(time.Until(p.started.Add(time.Duration(*seconds) * time.Second)))
			}
			if pod.DeletionTimestamp != nil && (!deleted || pod.DeletionGracePeriodSeconds != nil && *pod.DeletionGracePeriodSeconds == 0) {
				deleted = true
				end(*pod.DeletionGracePeriodSeconds)
			}
		case <-deadline:
			p.failed, p.reason, p.message = true, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
			end(*p.first.Spec.TerminationGracePeriodSeconds)
			deadline = nil
		case <-kill:
			p.signalAll(true)
		case container := <-ended:
			container.bury()
			if !ending && container.shouldRestart(p.first.Spec.RestartPolicy) {
				container.restartSoon(ctx)
			}
			if !ending {
				p.advance(ctx, ended)
			}
			p.report(ctx)
		case container := <-p.due:
			if !ending {
				container.start(ctx, ended)
				p.report(ctx)
			}
		case <-retry.C:
			// What a pod mounts or reads may appear later.
			if !ending && p.advance(ctx, ended) {
				p.report(ctx)
			}
		case <-p.forgotten:
			p.signalAll(true)
			for p.anyRunning() {
				(<-ended).bury()
			}
			return
		case <-ctx.Done():
			return
		}
		if deleted && !p.anyRunning() {
			p.report(ctx)
			if err := p.pods.deleteNow(ctx, p.first); err != nil && !errors.IsNotFound(err) {
				log.Printf("%s: %v", p.first.Name, err)
			}
			// The API tells us once it is gone; finalizers may keep it a while.
			deleted = false
		}
	}
}

// Makes the volumes, then starts the containers whose turn it is: init containers one after the other, then the rest. Says whether
// anything was tried.
func (p *runningPod) advance(ctx context.Context, ended chan<- *container) bool {
	if p.volumes == nil {
		volumes, err := p.makeVolumes(ctx)
		if err != nil {
			p.reason, p.message = "FailedMount", err.Error()
			return true
		}
		p.reason, p.message, p.volumes = "", "", volumes
	}
	tried := false
	for _, container := range p.containers {
		if !container.begun {
			container.start(ctx, ended)
			tried = true
		}
		if container.isInit && (!container.begun || container.running || container.restarting || container.exitCode != 0) {
			break
		}
	}
	return tried
}

func (p *runningPod) signalAll(kill bool) {
	for _, container := range p.containers {
		container.signal(kill)
	}
}

func (p *runningPod) anyRunning() bool {
	for _, container := range p.containers {
		if container.running {
			return true
		}
	}
	return false
}
