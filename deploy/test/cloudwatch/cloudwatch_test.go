// Package cloudwatch tests the CloudFormation templates with cfn-lint, and what they name with the documents that the
// built binary sends.
package cloudwatch

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/lowess/karrot/deploy/test/internal/run"
)

// root is the top of the repository.
const root = "../../.."

const templates = root + "/deploy/cloudwatch"

func lint(t testing.TB, args ...string) (output string, ok bool) {
	t.Helper()
	path, err := exec.LookPath("cfn-lint")
	require.NoError(t, err, "install cfn-lint: pip install cfn-lint")
	text, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	return string(text), err == nil
}

func TestTemplatesAreValid(t *testing.T) {
	output, ok := lint(t, "--", templates+"/karrot.yaml", templates+"/ecs-task.yaml", templates+"/scaling.yaml")
	assert.True(t, ok, output)

	// It finds what it should.
	text := read(t, templates+"/karrot.yaml")
	for _, wrong := range [][2]string{{"TreatMissingData: breaching", "TreatMissingData: bad"}, {"DatapointsToAlarm: 2", "DatapointToAlarm: 2"}, {"!Ref Documents", "!Ref Document"}} {
		require.Contains(t, text, wrong[0])
		file := filepath.Join(t.TempDir(), "spoilt.yaml")
		require.NoError(t, os.WriteFile(file, []byte(strings.Replace(text, wrong[0], wrong[1], 1)), 0o600))
		_, ok := lint(t, "--", file)
		assert.False(t, ok, wrong[1])
	}
}

// logs imitates CloudWatch Logs with one log group that is there.
type logs struct {
	mu        sync.Mutex
	streams   map[string]bool
	actions   map[string]bool
	documents []string
}

func (l *logs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var call struct {
		LogGroupName, LogStreamName string
		LogEvents                   []struct{ Message string }
	}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &call)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, action, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	l.actions[action] = true
	refuse := func(kind string) {
		w.Header().Set("X-Amzn-Errortype", kind)
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"__type":"` + kind + `"}`))
	}
	switch {
	case err != nil:
		refuse("InvalidParameterException")
	case action == "CreateLogStream":
		l.streams[call.LogStreamName] = true
		_, _ = w.Write([]byte("{}"))
	case action == "PutLogEvents" && !l.streams[call.LogStreamName]:
		refuse("ResourceNotFoundException")
	case action == "PutLogEvents":
		for _, event := range call.LogEvents {
			l.documents = append(l.documents, event.Message)
		}
		_, _ = w.Write([]byte("{}"))
	default:
		refuse("AccessDeniedException")
	}
}

// sent is what CloudWatch makes of documents: the dimensions of each metric, joined, by namespace and name.
func (l *logs) sent(t testing.TB) map[string]map[string]bool {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]map[string]bool{}
	for _, document := range l.documents {
		var d struct {
			AWS struct {
				CloudWatchMetrics []struct {
					Namespace  string
					Dimensions [][]string
					Metrics    []struct{ Name string }
				}
			} `json:"_aws"`
		}
		require.NoError(t, json.Unmarshal([]byte(document), &d), document)
		for _, m := range d.AWS.CloudWatchMetrics {
			for _, metric := range m.Metrics {
				key := m.Namespace + " " + metric.Name
				if out[key] == nil {
					out[key] = map[string]bool{}
				}
				for _, dimensions := range m.Dimensions {
					slices.Sort(dimensions)
					out[key][strings.Join(dimensions, ",")] = true
				}
			}
		}
	}
	return out
}

var (
	query  = regexp.MustCompile(`SELECT MAX\("([\w.]+)"\) FROM SCHEMA\("\$\{(\w+)\}", (\w+), "(\w+)"\) WHERE (\w+) = '\$\{Cluster\}' GROUP BY (\w+), "(\w+)" ORDER BY MAX\(\) DESC`)
	search = regexp.MustCompile(`SEARCH\('\{\\"\$\{(\w+)\}\\",(\w+),\\"(\w+)\\"\} MetricName=\\"([\w.]+)\\" (\w+)=`)
)

// Namespace, metrics and dimensions of alarms and dashboard are those of the documents, with the environment of the ECS task;
// and the policy allows exactly what Karrot asked for.
func TestTemplatesNameWhatIsSent(t *testing.T) {
	text := read(t, templates+"/karrot.yaml")
	var template struct {
		Parameters map[string]struct {
			Default string `yaml:"Default"`
		} `yaml:"Parameters"`
		Resources map[string]struct {
			Properties struct {
				PolicyDocument struct {
					Statement []struct {
						Action []string `yaml:"Action"`
					} `yaml:"Statement"`
				} `yaml:"PolicyDocument"`
			} `yaml:"Properties"`
		} `yaml:"Resources"`
	}
	require.NoError(t, yaml.Unmarshal([]byte(text), &template))

	cloudwatch := &logs{streams: map[string]bool{}, actions: map[string]bool{}}
	sent := sentBy(t, cloudwatch, template.Parameters["Namespace"].Default, template.Parameters["LogGroup"].Default)

	var named []string
	for _, found := range query.FindAllStringSubmatch(text, -1) {
		assert.Equal(t, "cluster cluster", found[5]+" "+found[6])
		assert.Equal(t, found[4], found[7])
		named = append(named, template.Parameters[found[2]].Default+" "+found[1]+" "+found[3]+","+found[4])
	}
	for _, found := range search.FindAllStringSubmatch(text, -1) {
		assert.Equal(t, "cluster", found[5])
		named = append(named, template.Parameters[found[1]].Default+" "+found[4]+" "+found[2]+","+found[3])
	}
	require.Len(t, named, strings.Count(text, "SELECT ")+strings.Count(text, "SEARCH("), "an expression that this test cannot read")
	require.Len(t, named, 8)
	for _, name := range named {
		i := strings.LastIndex(name, " ")
		assert.Contains(t, sent[name[:i]], name[i+1:], "%s is not sent; sent are %v", name, slices.Sorted(maps.Keys(sent)))
	}

	var asked []string
	cloudwatch.mu.Lock()
	for action := range cloudwatch.actions {
		asked = append(asked, "logs:"+action)
	}
	cloudwatch.mu.Unlock()
	assert.ElementsMatch(t, asked, template.Resources["Policy"].Properties.PolicyDocument.Statement[0].Action)
}

// sentBy gives a Karrot some notifications, and returns what it sends.
func sentBy(t *testing.T, cloudwatch *logs, namespace, logGroup string) map[string]map[string]bool {
	t.Helper()
	server := httptest.NewServer(cloudwatch)
	t.Cleanup(server.Close)
	k := run.StartKarrot(t, root, map[string]string{
		"AWS_ENDPOINT_URL": server.URL, "AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "example", "AWS_SECRET_ACCESS_KEY": "example",
		"KARROT_CLOUDWATCH_INTERVAL":  "1",
		"KARROT_CLOUDWATCH_NAMESPACE": namespace,
		"KARROT_CLOUDWATCH_LOG_GROUP": logGroup,
	}, "config/cloudwatch.yaml")
	for _, name := range []string{"warn", "stop", "stall"} {
		status, answer := run.Post(t, "http://"+k.Webhook+"/burrow", read(t, root+"/testdata/notifications/"+name+".json"))
		require.Equal(t, http.StatusOK, status, answer)
	}
	run.WaitFor(t, 20*time.Second, func() string {
		if len(cloudwatch.sent(t)) == 0 {
			return "nothing is sent"
		}
		return ""
	})
	return cloudwatch.sent(t)
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}
