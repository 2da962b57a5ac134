package main

import (
	"context"
	"fmt"
	"net/url"
	"path"
	"strings"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// What to run, as the pod's spec says it.
func (c *container) plan(ctx context.Context) (*plan, error) {
	names, values, err := c.environment(ctx)
	if err != nil {
		return nil, err
	}
	p := &plan{Env: []string{defaultPath, "HOSTNAME=" + c.pod.first.Name}, Dir: "/"}
	server, err := url.Parse(c.pod.pods.apiServer)
	if err != nil {
		return nil, err
	}
	p.Env = append(p.Env, "KUBERNETES_SERVICE_HOST="+server.Hostname(), "KUBERNETES_SERVICE_PORT="+server.Port())
	for _, name := range names {
		if name == "PATH" {
			p.Env = p.Env[1:]
		}
		p.Env = append(p.Env, name+"="+values[name])
	}
	command := c.spec.Command
	if len(command) == 0 {
		image := path.Base(c.spec.Image)
		image, _, _ = strings.Cut(image, "@")
		image, _, _ = strings.Cut(image, ":")
		program, known := c.pod.pods.own.entrypoints[image]
		if !known {
			return nil, fmt.Errorf("image %q has no entrypoint here, and the container no command", c.spec.Image)
		}
		command = strings.Fields(program)
	}
	for _, part := range append(append([]string{}, command...), c.spec.Args...) {
		p.Command = append(p.Command, expand(part, values))
	}
	if c.spec.WorkingDir != "" {
		p.Dir = c.spec.WorkingDir
	}
	for _, mounted := range c.spec.VolumeMounts {
		source := path.Join(c.pod.volumes[mounted.Name], mounted.SubPath)
		p.Mounts = append(p.Mounts, mount{Source: source, Target: mounted.MountPath, ReadOnly: mounted.ReadOnly})
	}
	if job, service := c.pod.first.Labels["batch.kubernetes.io/job-name"], c.pod.first.Spec.Subdomain; job != "" && service != "" {
		p.Host = job + "-0." + service
	}
	for folder, target := range c.pod.pods.own.shares {
		p.Mounts = append(p.Mounts, mount{Source: folder, Target: target})
	}
	return p, c.identity(p)
}

// User and groups; a container that must not be root has to say who it is, for there is no image that could.
func (c *container) identity(p *plan) error {
	mustNotBeRoot := false
	if pod := c.pod.first.Spec.SecurityContext; pod != nil {
		set(&p.UID, pod.RunAsUser)
		set(&p.GID, pod.RunAsGroup)
		for _, group := range pod.SupplementalGroups {
			p.Groups = append(p.Groups, int(group))
		}
		if pod.FSGroup != nil {
			p.Groups = append(p.Groups, int(*pod.FSGroup))
		}
		mustNotBeRoot = pod.RunAsNonRoot != nil && *pod.RunAsNonRoot
	}
	if own := c.spec.SecurityContext; own != nil {
		set(&p.UID, own.RunAsUser)
		set(&p.GID, own.RunAsGroup)
		if own.RunAsNonRoot != nil {
			mustNotBeRoot = *own.RunAsNonRoot
		}
		p.ReadOnly = own.ReadOnlyRootFilesystem != nil && *own.ReadOnlyRootFilesystem
	}
	if mustNotBeRoot && p.UID == 0 {
		return fmt.Errorf("container has runAsNonRoot and no runAsUser")
	}
	return nil
}

func set(to *int, from *int64) {
	if from != nil {
		*to = int(*from)
	}
}

// The environment, in order; later variables may refer to earlier ones.
func (c *container) environment(ctx context.Context) ([]string, map[string]string, error) {
	var names []string
	values := map[string]string{}
	put := func(name, value string) {
		if _, known := values[name]; !known {
			names = append(names, name)
		}
		values[name] = value
	}
	for _, from := range c.spec.EnvFrom {
		var all map[string]string
		var err error
		switch {
		case from.ConfigMapRef != nil:
			all, err = c.pod.configMap(ctx, from.ConfigMapRef.Name, from.ConfigMapRef.Optional)
		case from.SecretRef != nil:
			all, err = c.pod.secret(ctx, from.SecretRef.Name, from.SecretRef.Optional)
		}
		if err != nil {
			return nil, nil, err
		}
		for name, value := range all {
			put(from.Prefix+name, value)
		}
	}
	for _, variable := range c.spec.Env {
		value, err := expand(variable.Value, values), error(nil)
		if from := variable.ValueFrom; from != nil {
			value, err = c.pod.valueFrom(ctx, from)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("env %s: %w", variable.Name, err)
		}
		put(variable.Name, value)
	}
	return names, values, nil
}

func (p *runningPod) valueFrom(ctx context.Context, from *core.EnvVarSource) (string, error) {
	entry := func(all map[string]string, err error, name, key string, optional *bool) (string, error) {
		value, known := all[key]
		if err == nil && !known && (optional == nil || !*optional) {
			err = fmt.Errorf("%s has no key %q", name, key)
		}
		return value, err
	}
	switch {
	case from.FieldRef != nil:
		return p.field(from.FieldRef.FieldPath)
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		all, err := p.configMap(ctx, ref.Name, ref.Optional)
		return entry(all, err, ref.Name, ref.Key, ref.Optional)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		all, err := p.secret(ctx, ref.Name, ref.Optional)
		return entry(all, err, ref.Name, ref.Key, ref.Optional)
	}
	return "", fmt.Errorf("this node knows no such source of a value")
}

// A field of the downward API.
func (p *runningPod) field(path string) (string, error) {
	pod := p.first
	for prefix, all := range map[string]map[string]string{"metadata.labels": pod.Labels, "metadata.annotations": pod.Annotations} {
		if key, found := strings.CutPrefix(path, prefix+"['"); found {
			return all[strings.TrimSuffix(key, "']")], nil
		}
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP":
		return p.address, nil
	case "status.hostIP":
		return address, nil
	}
	return "", fmt.Errorf("this node knows no field %s", path)
}

func (p *runningPod) configMap(ctx context.Context, name string, optional *bool) (map[string]string, error) {
	found, err := p.pods.client.CoreV1().ConfigMaps(p.first.Namespace).Get(ctx, name, meta.GetOptions{})
	if err != nil {
		return nil, unlessOptional(err, optional)
	}
	all := map[string]string{}
	for key, value := range found.BinaryData {
		all[key] = string(value)
	}
	for key, value := range found.Data {
		all[key] = value
	}
	return all, nil
}

func (p *runningPod) secret(ctx context.Context, name string, optional *bool) (map[string]string, error) {
	found, err := p.pods.client.CoreV1().Secrets(p.first.Namespace).Get(ctx, name, meta.GetOptions{})
	if err != nil {
		return nil, unlessOptional(err, optional)
	}
	all := map[string]string{}
	for key, value := range found.Data {
		all[key] = string(value)
	}
	return all, nil
}

func unlessOptional(err error, optional *bool) error {
	if optional != nil && *optional {
		return nil
	}
	return err
}

// Replaces `$(NAME)` by a known variable and `$$` by `$`, as kubelets do.
func expand(text string, values map[string]string) string {
	var out strings.Builder
	for len(text) > 0 {
		at := strings.IndexByte(text, '$')
		if at < 0 || at == len(text)-1 {
			break
		}
		out.WriteString(text[:at])
		rest := text[at+1:]
		end := strings.IndexByte(rest, ')')
		switch {
		case rest[0] == '$':
			out.WriteByte('$')
			text = rest[1:]
		case rest[0] == '(' && end > 0:
			value, known := values[rest[1:end]]
			if !known {
				value = "$" + rest[:end+1]
			}
			out.WriteString(value)
			text = rest[end+1:]
		default:
			out.WriteByte('$')
			text = rest
		}
	}
	out.WriteString(text)
	return out.String()
}
