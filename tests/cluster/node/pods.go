package main

import (
	"context"
	"fmt"
	"sync"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// The pods that are bound to this node, each with a goroutine of its own.
type pods struct {
	own    settings
	client kubernetes.Interface
	// Where pods find the API server.
	apiServer string

	mutex sync.Mutex
	byUID map[types.UID]*runningPod
	count int
}

func newPods(own settings, client kubernetes.Interface, apiServer string) *pods {
	return &pods{own: own, client: client, apiServer: apiServer, byUID: map[types.UID]*runningPod{}}
}

// Follows the API until the context ends.
func (p *pods) run(ctx context.Context) {
	bound := fields.OneTermEqualSelector("spec.nodeName", p.own.name)
	source := cache.NewListWatchFromClient(p.client.CoreV1().RESTClient(), "pods", core.NamespaceAll, bound)
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: source,
		ObjectType:    &core.Pod{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { p.changed(ctx, object.(*core.Pod)) },
			UpdateFunc: func(_, object any) { p.changed(ctx, object.(*core.Pod)) },
			DeleteFunc: func(object any) {
				if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
					object = last.Obj
				}
				p.gone(object.(*core.Pod))
			},
		},
	})
	informer.Run(ctx.Done())
}

func (p *pods) changed(ctx context.Context, pod *core.Pod) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	running := p.byUID[pod.UID]
	if running == nil {
		if pod.Status.Phase == core.PodSucceeded || pod.Status.Phase == core.PodFailed {
			return
		}
		running = newRunningPod(p, pod)
		p.byUID[pod.UID] = running
		go running.live(ctx)
	}
	running.tell(pod)
}

// An address from the range for benchmarks (RFC 2544): controllers refuse loopback addresses as endpoints, and nothing listens on this one.
func (p *pods) nextAddress() string {
	p.count++
	return fmt.Sprintf("198.18.%d.%d", p.count/250%250, p.count%250+1)
}

// A pod that is no more in the API: what still runs of it is killed, its folder goes.
func (p *pods) gone(pod *core.Pod) {
	p.mutex.Lock()
	running := p.byUID[pod.UID]
	delete(p.byUID, pod.UID)
	p.mutex.Unlock()
	if running != nil {
		running.forget()
	}
}

// The container's output, for the log API.
func (p *pods) output(namespace, name, container string) *output {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, running := range p.byUID {
		if running.first.Namespace == namespace && running.first.Name == name {
			return running.output(container)
		}
	}
	return nil
}

func (p *pods) deleteNow(ctx context.Context, pod *core.Pod) error {
	now := int64(0)
	options := meta.DeleteOptions{GracePeriodSeconds: &now, Preconditions: &meta.Preconditions{UID: &pod.UID}}
	return p.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, options)
}
