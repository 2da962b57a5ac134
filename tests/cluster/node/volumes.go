package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Makes a folder of each volume; returns them by name. Files are written once: later changes of a ConfigMap do not reach them.
func (p *runningPod) makeVolumes(ctx context.Context) (map[string]string, error) {
	// Containers of any user must get through to their volumes.
	if err := os.MkdirAll(p.folder(), 0o711); err != nil {
		return nil, err
	}
	volumes := map[string]string{}
	for _, volume := range p.first.Spec.Volumes {
		folder := filepath.Join(p.folder(), "volumes", volume.Name)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, err
		}
		if err := p.fillVolume(ctx, folder, volume); err != nil {
			return nil, fmt.Errorf("volume %s: %w", volume.Name, err)
		}
		volumes[volume.Name] = folder
	}
	return volumes, nil
}

func (p *runningPod) fillVolume(ctx context.Context, folder string, volume core.Volume) error {
	switch {
	case volume.EmptyDir != nil:
		return os.Chmod(folder, 0o777)
	case volume.ConfigMap != nil:
		all, err := p.configMap(ctx, volume.ConfigMap.Name, volume.ConfigMap.Optional)
		return writeFiles(folder, all, volume.ConfigMap.Items, err)
	case volume.Secret != nil:
		all, err := p.secret(ctx, volume.Secret.SecretName, volume.Secret.Optional)
		return writeFiles(folder, all, volume.Secret.Items, err)
	case volume.DownwardAPI != nil:
		return p.writeFields(folder, volume.DownwardAPI.Items)
	case volume.Projected != nil:
		for _, source := range volume.Projected.Sources {
			if err := p.project(ctx, folder, source); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("this node knows no such kind of volume")
}

func (p *runningPod) project(ctx context.Context, folder string, source core.VolumeProjection) error {
	switch {
	case source.ConfigMap != nil:
		all, err := p.configMap(ctx, source.ConfigMap.Name, source.ConfigMap.Optional)
		return writeFiles(folder, all, source.ConfigMap.Items, err)
	case source.Secret != nil:
		all, err := p.secret(ctx, source.Secret.Name, source.Secret.Optional)
		return writeFiles(folder, all, source.Secret.Items, err)
	case source.DownwardAPI != nil:
		return p.writeFields(folder, source.DownwardAPI.Items)
	case source.ServiceAccountToken != nil:
		token, err := p.token(ctx, source.ServiceAccountToken)
		return writeFiles(folder, map[string]string{source.ServiceAccountToken.Path: token}, nil, err)
	}
	return fmt.Errorf("this node knows no such projection")
}

// A token of the pod's service account that ends with the pod.
func (p *runningPod) token(ctx context.Context, source *core.ServiceAccountTokenProjection) (string, error) {
	request := &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{
		ExpirationSeconds: source.ExpirationSeconds,
		BoundObjectRef:    &authentication.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: p.first.Name, UID: p.first.UID},
	}}
	if source.Audience != "" {
		request.Spec.Audiences = []string{source.Audience}
	}
	accounts := p.pods.client.CoreV1().ServiceAccounts(p.first.Namespace)
	granted, err := accounts.CreateToken(ctx, p.first.Spec.ServiceAccountName, request, meta.CreateOptions{})
	if err != nil {
		return "", err
	}
	return granted.Status.Token, nil
}

func (p *runningPod) writeFields(folder string, items []core.DownwardAPIVolumeFile) error {
	all := map[string]string{}
	for _, item := range items {
		if item.FieldRef == nil {
			return fmt.Errorf("this node knows no resource fields")
		}
		value, err := p.field(item.FieldRef.FieldPath)
		if err != nil {
			return err
		}
		all[item.Path] = value
	}
	return writeFiles(folder, all, nil, nil)
}

// Readable for all, since a container may be any user; the folder above is not listable.
func writeFiles(folder string, all map[string]string, items []core.KeyToPath, err error) error {
	if err != nil {
		return err
	}
	paths := map[string]string{}
	for key := range all {
		paths[key] = key
	}
	if len(items) > 0 {
		paths = map[string]string{}
		for _, item := range items {
			paths[item.Key] = item.Path
		}
	}
	for key, path := range paths {
		value, known := all[key]
		if !known {
			return fmt.Errorf("there is no key %q", key)
		}
		file := filepath.Join(folder, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			return err
		}
	}
	return nil
}
