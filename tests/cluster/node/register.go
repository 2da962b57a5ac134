package main

import (
	"context"
	"encoding/json"
	"log"
	"runtime"
	"time"

	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const address = "127.0.0.1"

// Makes the Node and keeps its lease: without it the controller manager would evict our pods.
func register(ctx context.Context, own settings, client kubernetes.Interface, port int32) error {
	capacity := core.ResourceList{
		core.ResourceCPU:              *resource.NewQuantity(64, resource.DecimalSI),
		core.ResourceMemory:           resource.MustParse("256Gi"),
		core.ResourceEphemeralStorage: resource.MustParse("64Gi"),
		core.ResourcePods:             *resource.NewQuantity(200, resource.DecimalSI),
	}
	if own.gpus > 0 {
		capacity["nvidia.com/gpu"] = *resource.NewQuantity(own.gpus, resource.DecimalSI)
	}
	labels := map[string]string{
		core.LabelHostname:   own.name,
		core.LabelOSStable:   runtime.GOOS,
		core.LabelArchStable: runtime.GOARCH,
	}
	for name, value := range own.labels {
		labels[name] = value
	}
	node := &core.Node{ObjectMeta: meta.ObjectMeta{Name: own.name, Labels: labels}}
	if _, err := client.CoreV1().Nodes().Create(ctx, node, meta.CreateOptions{}); err != nil && !errors.IsAlreadyExists(err) {
		return err
	}
	now := meta.Now()
	status := core.NodeStatus{
		Capacity:    capacity,
		Allocatable: capacity,
		Conditions: []core.NodeCondition{{
			Type: core.NodeReady, Status: core.ConditionTrue, Reason: "TestNode", LastHeartbeatTime: now, LastTransitionTime: now,
		}},
		Addresses:       []core.NodeAddress{{Type: core.NodeInternalIP, Address: address}, {Type: core.NodeHostName, Address: own.name}},
		DaemonEndpoints: core.NodeDaemonEndpoints{KubeletEndpoint: core.DaemonEndpoint{Port: port}},
		NodeInfo: core.NodeSystemInfo{
			KubeletVersion: "v1.34.4-test-node", OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH,
		},
	}
	// A patch: controllers change the Node from its first moment on.
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	if _, err := client.CoreV1().Nodes().PatchStatus(ctx, own.name, patch); err != nil {
		return err
	}
	go keepLease(ctx, own, client)
	return nil
}

func keepLease(ctx context.Context, own settings, client kubernetes.Interface) {
	leases := client.CoordinationV1().Leases(core.NamespaceNodeLease)
	seconds := int32(40)
	for {
		now := meta.NowMicro()
		spec := coordination.LeaseSpec{HolderIdentity: &own.name, LeaseDurationSeconds: &seconds, RenewTime: &now}
		lease, err := leases.Get(ctx, own.name, meta.GetOptions{})
		if errors.IsNotFound(err) {
			lease = &coordination.Lease{ObjectMeta: meta.ObjectMeta{Name: own.name}, Spec: spec}
			_, err = leases.Create(ctx, lease, meta.CreateOptions{})
		} else if err == nil {
			lease.Spec = spec
			_, err = leases.Update(ctx, lease, meta.UpdateOptions{})
		}
		if err != nil && ctx.Err() == nil {
			log.Printf("lease: %v", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Second):
		}
	}
}
