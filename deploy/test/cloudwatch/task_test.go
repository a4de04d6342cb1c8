package cloudwatch

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/deploy/test/internal/run"
)

// The task of each choice, as ECS would have it, and its Karrot started: a notification arrives in CloudWatch.
func TestTask(t *testing.T) {
	text := read(t, templates+"/ecs-task.yaml")
	with := func(more ...string) wanted {
		parameters := map[string]string{
			"Image": "registry.example.com/karrot", "TaskRoleArn": "arn:aws:iam::123456789012:role/karrot-task", "ExecutionRoleArn": "arn:aws:iam::123456789012:role/execution",
		}
		for _, parameter := range more {
			name, value, _ := strings.Cut(parameter, "=")
			parameters[name] = value
		}
		return wanted{text, parameters}
	}
	stacks := makeStacks(t,
		with(),
		with("Config=cloudwatch-lean", "LogGroup=/lag/east", "Namespace=Lag"),
		with("FileSystem=FILE_SYSTEM"),
		with("Config=cloudwatch-durable", "FileSystem=FILE_SYSTEM"),
		with("Config=cloudwatch-durable"),
		with("Config=cloudwatch-otlp"),
	)
	assert.Contains(t, stacks[4].Error, "Set FileSystem")
	assert.Contains(t, stacks[5].Error, "Config must be one of")
	for i, want := range []struct {
		configs, logGroup, namespace string
		volume                       bool
	}{
		{"karrot cloudwatch", "/karrot/burrow", "GumGum/Kafka/Burrow/ConsumerLag", false},
		{"karrot cloudwatch-lean", "/lag/east", "Lag", false},
		{"karrot cloudwatch storage", "/karrot/burrow", "GumGum/Kafka/Burrow/ConsumerLag", true},
		{"karrot cloudwatch-durable storage", "/karrot/burrow", "GumGum/Kafka/Burrow/ConsumerLag", true},
	} {
		t.Run(want.configs, func(t *testing.T) {
			require.Empty(t, stacks[i].Error)
			require.Len(t, stacks[i].Made.LogGroups, 1)
			assert.Equal(t, want.logGroup+"/own", stacks[i].Made.LogGroups[0].LogGroupName)
			require.Len(t, stacks[i].Made.Tasks, 1)
			task := stacks[i].Made.Tasks[0]
			require.Len(t, task.ContainerDefinitions, 1)
			container := task.ContainerDefinitions[0]
			assert.Equal(t, task.Memory, strconv.Itoa(container.Memory), "Karrot sees the memory of the container, and not that of the task")
			assert.Equal(t, "10001", container.User)
			assert.True(t, container.ReadonlyRootFilesystem)
			assert.GreaterOrEqual(t, container.StopTimeout, 21, "an end takes up to 21 s")
			exposed := regexp.MustCompile(`(?m)^EXPOSE (.*)$`).FindStringSubmatch(read(t, root+"/Dockerfile"))
			require.NotNil(t, exposed)
			require.Len(t, container.PortMappings, 3)
			for _, port := range container.PortMappings {
				assert.Contains(t, strings.Fields(exposed[1]), strconv.Itoa(port.ContainerPort))
			}
			checkVolume(t, &stacks[i], want.volume)
			startTask(t, &task, want.configs, want.namespace)
		})
	}
}

// checkVolume holds the volume against the access point, and the permissions against both.
func checkVolume(t *testing.T, s *stack, wanted bool) {
	t.Helper()
	task := s.Made.Tasks[0]
	mounts := task.ContainerDefinitions[0].MountPoints
	if !wanted {
		assert.Empty(t, task.Volumes)
		assert.Empty(t, mounts)
		assert.Empty(t, s.Made.AccessPoints)
		assert.Empty(t, s.Made.RolePolicies)
		return
	}
	require.Len(t, s.Made.AccessPoints, 1)
	point := s.Made.AccessPoints[0]
	assert.Equal(t, [2]int{10001, 10001}, [2]int{point.PosixUser.UID, point.PosixUser.GID}, "the image's user")
	assert.Equal(t, [2]int{10001, 10001}, [2]int{point.RootDirectory.CreationInfo.OwnerUID, point.RootDirectory.CreationInfo.OwnerGID})
	assert.Equal(t, "/karrot-east", point.RootDirectory.Path, "two stacks may share a file system")
	require.Len(t, task.Volumes, 1)
	volume := task.Volumes[0]
	assert.Equal(t, point.FileSystemID, volume.EFS.FileSystemID)
	assert.Equal(t, point.AccessPointID, volume.EFS.AuthorizationConfig.AccessPointID)
	assert.Equal(t, "ENABLED ENABLED", volume.EFS.TransitEncryption+" "+volume.EFS.AuthorizationConfig.IAM)
	require.Len(t, mounts, 1)
	assert.Equal(t, volume.Name, mounts[0].SourceVolume)
	assert.False(t, mounts[0].ReadOnly)
	require.Len(t, s.Made.RolePolicies, 1)
	for _, policy := range s.Made.RolePolicies {
		require.Len(t, policy.Statement, 1)
		assert.ElementsMatch(t, []string{"elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"}, policy.Statement[0].Action)
		assert.True(t, strings.HasSuffix(policy.Statement[0].Resource, ":file-system/"+point.FileSystemID), policy.Statement[0].Resource)
		assert.True(t, strings.HasSuffix(policy.Statement[0].Condition["StringEquals"]["elasticfilesystem:AccessPointArn"], "/"+point.AccessPointID))
	}
}

// startTask gives the binary what the container gives it. Ports, the mounted folder and the address of CloudWatch are replaced.
func startTask(t *testing.T, task *taskDefinition, configs, namespace string) {
	t.Helper()
	container := task.ContainerDefinitions[0]
	cloudwatch := &logs{streams: map[string]bool{}, actions: map[string]bool{}}
	server := httptest.NewServer(cloudwatch)
	t.Cleanup(server.Close)
	ports := run.Ports(t, 5)
	env := map[string]string{
		"AWS_ENDPOINT_URL": server.URL, "AWS_ACCESS_KEY_ID": "example", "AWS_SECRET_ACCESS_KEY": "example", "AWS_EC2_METADATA_DISABLED": "true",
		"KARROT_ENDPOINT": "127.0.0.1:" + ports[0], "KARROT_PROMETHEUS_ENDPOINT": "127.0.0.1:" + ports[1], "KARROT_HEALTH_ENDPOINT": "127.0.0.1:" + ports[2],
		"KARROT_TELEMETRY_PORT": ports[3], "KARROT_CLOUDWATCH_LOOPBACK": "127.0.0.1:" + ports[4], "KARROT_CLOUDWATCH_INTERVAL": "1",
		// The root file system cannot be written to.
		"KARROT_STORAGE_DIRECTORY": "/proc/karrot",
	}
	for _, variable := range container.Environment {
		env[variable.Name] = variable.Value
	}
	for _, mount := range container.MountPoints {
		require.Equal(t, "/var/lib/karrot", mount.ContainerPath)
		env["KARROT_STORAGE_DIRECTORY"] = t.TempDir()
	}
	var args, names []string
	for _, arg := range container.Command {
		if file, found := strings.CutPrefix(arg, "/config/"); found {
			names = append(names, strings.TrimSuffix(file, ".yaml"))
			arg = filepath.Join(root, "config", file)
		}
		args = append(args, arg)
	}
	assert.Equal(t, configs, strings.Join(names, " "))
	binary := run.Binary(t, root)
	validate := run.Start(t, "", env, binary, append([]string{"validate"}, args...)...)
	require.Zero(t, validate.Wait(), "%s", validate.Output())
	k := &run.Karrot{Health: "127.0.0.1:" + ports[2], Process: run.Start(t, "", env, binary, args...)}
	k.Healthy(t)
	status, answer := run.Post(t, "http://127.0.0.1:"+ports[0]+"/burrow", read(t, root+"/testdata/notifications/stop.json"))
	require.Equal(t, http.StatusOK, status, answer)
	run.WaitFor(t, 20*time.Second, func() string {
		if sent := cloudwatch.sent(t); !sent[namespace+" burrow.group.status"]["cluster,group"] {
			return fmt.Sprintf("not sent to the namespace %s: %v", namespace, sent)
		}
		return ""
	})
	require.Equal(t, []string{"CMD", "/karrot"}, container.HealthCheck.Command[:2])
	assert.Zero(t, run.Start(t, "", env, binary, container.HealthCheck.Command[2:]...).Wait())
	assert.Zero(t, k.Stop(t))
	assert.NotZero(t, run.Start(t, "", env, binary, container.HealthCheck.Command[2:]...).Wait(), "the health check cannot fail")
}

// The scaling policy divides the lag that the binary sends by the number of tasks, and fills no gaps: AWS does not scale in without data.
func TestScaling(t *testing.T) {
	text := read(t, templates+"/scaling.yaml")
	parameters := map[string]string{"EcsCluster": "shop", "Service": "orders", "Cluster": "east", "Group": "orders", "MaxTasks": "12"}
	other := map[string]string{"EcsCluster": "shop", "Service": "away", "Cluster": "east", "Group": "orders", "MaxTasks": "12"}
	stacks := makeStacks(t, wanted{text, parameters}, wanted{text, other})
	require.Empty(t, stacks[0].Error)
	assert.Contains(t, stacks[1].Error, "ECS service doesn't exist")
	require.Len(t, stacks[0].Made.Targets, 1)
	assert.Equal(t, "service/shop/orders 1 12", fmt.Sprint(stacks[0].Made.Targets[0].ResourceID, " ", stacks[0].Made.Targets[0].MinCapacity, " ", stacks[0].Made.Targets[0].MaxCapacity))
	require.Len(t, stacks[0].Made.Scaling, 1)
	policy := stacks[0].Made.Scaling[0]
	assert.Equal(t, "service/shop/orders", policy.ResourceID)
	assert.InDelta(t, 1000, policy.TargetTracking.TargetValue, 0)

	cloudwatch := &logs{streams: map[string]bool{}, actions: map[string]bool{}}
	sent := sentBy(t, cloudwatch, "GumGum/Kafka/Burrow/ConsumerLag", "/karrot/burrow")
	ids := map[string]bool{}
	returned := 0
	for _, m := range policy.TargetTracking.CustomizedMetricSpecification.Metrics {
		ids[m.ID] = true
		if m.ReturnData {
			returned++
			assert.Equal(t, "lag / tasks", m.Expression)
			continue
		}
		var dimensions []string
		values := map[string]string{}
		for _, d := range m.MetricStat.Metric.Dimensions {
			dimensions = append(dimensions, d.Name)
			values[d.Name] = d.Value
		}
		if m.MetricStat.Metric.Namespace == "ECS/ContainerInsights" {
			assert.Equal(t, map[string]string{"ClusterName": "shop", "ServiceName": "orders"}, values)
			continue
		}
		assert.Contains(t, sent[m.MetricStat.Metric.Namespace+" "+m.MetricStat.Metric.MetricName], strings.Join(dimensions, ","))
		assert.Equal(t, map[string]string{"cluster": "east", "group": "orders"}, values)
	}
	assert.Equal(t, map[string]bool{"lagPerTask": true, "lag": true, "tasks": true}, ids)
	assert.Equal(t, 1, returned)
}
