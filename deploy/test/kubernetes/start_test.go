package kubernetes

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
	core "k8s.io/api/core/v1"

	"github.com/lowess/karrot/deploy/test/internal/run"
)

const (
	password = "secret"
	token    = "4f1c8d0a"
)

// startRendered gives the binary the arguments and variables of the rendered container, posts a notification to the
// container's port named webhook, and reads it from the port named metrics. Ports, mounted folders and the addresses of other
// hosts are replaced, because this is not a pod.
func startRendered(t *testing.T, o *objects) {
	t.Helper()
	template, _ := o.pod(t)
	container := template.Spec.Containers[0]
	dir := t.TempDir()
	folders := mountedFolders(t, dir, template.Spec, o)

	env := map[string]string{
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_ACCESS_KEY_ID": "example", "AWS_SECRET_ACCESS_KEY": "example", "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
		// CloudWatch by OTLP has its address in the configuration, and must not be reached.
		"HTTPS_PROXY": "http://127.0.0.1:1",
	}
	for _, source := range container.EnvFrom {
		if source.ConfigMapRef != nil {
			env["AWS_REGION"] = "eu-west-1" // stands for what the ConfigMap has
		}
	}
	for _, variable := range container.Env {
		env[variable.Name] = variable.Value
	}
	// Each port of the container, by its name, is what a variable makes it. Here another number is free.
	free := run.Ports(t, 5)
	env["KARROT_CLOUDWATCH_LOOPBACK"] = "127.0.0.1:" + free[4]
	address := map[string]string{}
	// All interfaces of a pod are the loopback interface here, of the same kind.
	loopback := map[string]string{"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}[env["KARROT_TELEMETRY_HOST"]]
	require.NotEmpty(t, loopback, "Karrot's own metrics are not on all interfaces")
	for i, name := range []string{"webhook", "metrics", "telemetry", "health"} {
		number := portOf(t, container, name)
		address[name] = loopback + ":" + free[i]
		found := false
		for _, key := range []string{"KARROT_ENDPOINT", "KARROT_PROMETHEUS_ENDPOINT", "KARROT_HEALTH_ENDPOINT"} {
			if env[key] == fmt.Sprintf("%s:%d", env["KARROT_TELEMETRY_HOST"], number) {
				env[key], found = address[name], true
			}
		}
		if env["KARROT_TELEMETRY_PORT"] == strconv.Itoa(int(number)) {
			env["KARROT_TELEMETRY_PORT"], found = free[i], true
		}
		require.True(t, found, "nothing listens on the port %s of the container", name)
	}
	env["KARROT_TELEMETRY_HOST"] = loopback
	// The root file system cannot be written to.
	env["KARROT_STORAGE_DIRECTORY"] = "/proc/karrot"
	if folder := folders["/var/lib/karrot"]; folder != "" {
		env["KARROT_STORAGE_DIRECTORY"] = folder
	}
	if folder := folders["/etc/karrot"]; folder != "" {
		env["KARROT_TLS_CERT"], env["KARROT_TLS_KEY"], env["KARROT_HTPASSWD"] = folder+"/tls.crt", folder+"/tls.key", folder+"/htpasswd"
		env["KARROT_PROMETHEUS_TOKEN"] = folder + "/prometheus.token"
	}

	var args []string
	for _, arg := range container.Args {
		config, found := strings.CutPrefix(arg, "--config=")
		if !found {
			args = append(args, arg)
			continue
		}
		file := filepath.Join(root, config)
		if folder, name := filepath.Split(config); folders[strings.TrimSuffix(folder, "/")] != "" {
			file = filepath.Join(folders[strings.TrimSuffix(folder, "/")], name)
		}
		args = append(args, "--config="+file)
	}
	binary := run.Binary(t, root)
	validate := run.Start(t, "", env, binary, append([]string{"validate"}, args...)...)
	require.Zero(t, validate.Wait(), "%s", validate.Output())

	p := run.Start(t, "", env, binary, args...)
	for _, probe := range []*core.Probe{container.ReadinessProbe, container.LivenessProbe} {
		p.Ready(t, 30*time.Second, "http://"+address[probe.HTTPGet.Port.StrVal]+probe.HTTPGet.Path)
	}
	body, err := os.ReadFile(root + "/testdata/notifications/warn.json")
	require.NoError(t, err)
	scheme, client, credentials := "http", http.DefaultClient, ""
	if folders["/etc/karrot"] != "" {
		scheme, credentials = "https", "Basic "+base64.StdEncoding.EncodeToString([]byte("burrow:"+password))
		client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // the certificate is of this test
		status, _ := do(t, client, scheme+"://"+address["webhook"]+"/burrow", string(body), "")
		assert.Equal(t, http.StatusUnauthorized, status, "without the password")
		for _, wrong := range []string{"", "Bearer " + token + "0", credentials} {
			status, page := do(t, client, scheme+"://"+address["metrics"]+"/metrics", "", wrong)
			assert.Equal(t, http.StatusUnauthorized, status, "the page without the token")
			assert.NotContains(t, page, "burrow_")
		}
	}
	status, answer := do(t, client, scheme+"://"+address["webhook"]+"/burrow", string(body), credentials)
	require.Equal(t, http.StatusOK, status, answer)
	p.Until(t, 10*time.Second, func() string {
		_, page := do(t, client, scheme+"://"+address["metrics"]+"/metrics", "", "Bearer "+token)
		if !strings.Contains(page, `burrow_group_status{cluster="east",group="fraud-check"`) {
			return "the group is not on the page:\n" + page
		}
		return ""
	})
	status, own := run.Get(t, "http://"+address["telemetry"]+"/metrics")
	assert.Equal(t, http.StatusOK, status)
	assert.Contains(t, own, "otelcol_receiver_burrow_groups")
	tests := func() (codes []int) {
		for _, pod := range o.tests {
			// The address is that of the Service, and of its port for the telemetry of the container.
			args := slices.Clone(pod.Spec.Containers[0].Args)
			last := &args[len(args)-1]
			host := fmt.Sprintf("http://%s.kafka.svc:%d/", o.services[0].Name, servicePort(t, o.services[0], "telemetry"))
			require.Contains(t, *last, host)
			*last = strings.Replace(*last, host, "http://"+address["telemetry"]+"/", 1)
			codes = append(codes, run.Start(t, "", nil, binary, args...).Wait())
		}
		return codes
	}
	assert.NotContains(t, tests(), 1, "helm test fails")
	if !slices.ContainsFunc(container.Args, func(arg string) bool { return strings.Contains(arg, "cloudwatch") }) {
		assert.Zero(t, p.Stop(t), "it stops cleanly")
		assert.NotContains(t, tests(), 0, "helm test passes without a Karrot")
	}
}

// servicePort is the number of a port of a Service that goes to the port of the container of that name.
func servicePort(t *testing.T, service *core.Service, target string) int32 {
	t.Helper()
	for _, port := range service.Spec.Ports {
		if port.TargetPort.StrVal == target {
			return port.Port
		}
	}
	require.Fail(t, "no port goes to "+target)
	return 0
}

// mountedFolders makes the folders that the pod mounts, and returns them by mount path.
func mountedFolders(t *testing.T, dir string, spec core.PodSpec, o *objects) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, mount := range spec.Containers[0].VolumeMounts {
		folder := filepath.Join(dir, mount.Name)
		require.NoError(t, os.MkdirAll(folder, 0o700))
		out[mount.MountPath] = folder
		i := slices.IndexFunc(spec.Volumes, func(v core.Volume) bool { return v.Name == mount.Name })
		if i < 0 {
			continue
		}
		if source := spec.Volumes[i].ConfigMap; source != nil {
			for _, m := range o.configMaps {
				if m.Name != source.Name {
					continue
				}
				for name, text := range m.Data {
					require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600))
				}
			}
		}
		if spec.Volumes[i].Projected != nil {
			hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(folder, "htpasswd"), append([]byte("burrow:"), hash...), 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(folder, "prometheus.token"), []byte(token), 0o600))
			writeCertificate(t, folder)
		}
	}
	return out
}

func writeCertificate(t *testing.T, folder string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	secret, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	for name, block := range map[string]*pem.Block{"tls.crt": {Type: "CERTIFICATE", Bytes: certificate}, "tls.key": {Type: "EC PRIVATE KEY", Bytes: secret}} {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), pem.EncodeToMemory(block), 0o600))
	}
}

// do posts a body, or asks for a page when there is none.
func do(t *testing.T, client *http.Client, url, body, credentials string) (status int, answer string) {
	t.Helper()
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	if credentials != "" {
		request.Header.Set("Authorization", credentials)
	}
	return run.DoWith(t, client, request)
}

func portOf(t *testing.T, container core.Container, name string) int32 {
	t.Helper()
	i := slices.IndexFunc(container.Ports, func(p core.ContainerPort) bool { return p.Name == name })
	require.GreaterOrEqual(t, i, 0, "no port %s", name)
	return container.Ports[i].ContainerPort
}
