package main

import (
	"context"
	"encoding/json"
	"log"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Tells the API how the pod stands.
func (p *runningPod) report(ctx context.Context) {
	status := p.status()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.first.UID}, "status": status})
	if err != nil {
		log.Fatalf("a status is plain data: %v", err)
	}
	pods := p.pods.client.CoreV1().Pods(p.first.Namespace)
	_, err = pods.Patch(ctx, p.first.Name, types.StrategicMergePatchType, patch, meta.PatchOptions{}, "status")
	if err != nil && !errors.IsNotFound(err) && !errors.IsConflict(err) && ctx.Err() == nil {
		log.Printf("status of %s: %v", p.first.Name, err)
	}
}

func (p *runningPod) status() core.PodStatus {
	status := core.PodStatus{
		Phase: p.phase(), Reason: p.reason, Message: p.message, StartTime: &p.started,
		HostIP: address, HostIPs: []core.HostIP{{IP: address}}, PodIP: p.address, PodIPs: []core.PodIP{{IP: p.address}},
	}
	ready := status.Phase == core.PodRunning
	for _, container := range p.containers {
		if container.isInit {
			status.InitContainerStatuses = append(status.InitContainerStatuses, container.status())
			continue
		}
		ready = ready && container.running
		status.ContainerStatuses = append(status.ContainerStatuses, container.status())
	}
	condition := func(kind core.PodConditionType, is bool) {
		state := core.ConditionFalse
		if is {
			state = core.ConditionTrue
		}
		status.Conditions = append(status.Conditions, core.PodCondition{Type: kind, Status: state, LastTransitionTime: meta.Now()})
	}
	condition(core.PodInitialized, status.Phase != core.PodPending)
	condition(core.PodReady, ready)
	condition(core.ContainersReady, ready)
	return status
}

func (p *runningPod) phase() core.PodPhase {
	pending, running, failed, initFailed := false, false, p.failed, false
	for _, container := range p.containers {
		switch {
		case container.running || container.restarting:
			running = running || !container.isInit
			pending = pending || container.isInit
		case !container.begun:
			pending = true
		case container.exitCode != 0:
			failed = true
			initFailed = initFailed || container.isInit
		}
	}
	switch {
	case p.failed && !p.anyRunning(), initFailed:
		return core.PodFailed
	case running:
		return core.PodRunning
	case pending:
		return core.PodPending
	case failed:
		return core.PodFailed
	default:
		return core.PodSucceeded
	}
}
