package cloudwatch

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/deploy/test/internal/run"
)

// things are what an account has.
type things struct {
	LogGroups []struct {
		LogGroupName    string
		RetentionInDays int
		LogGroupArn     string
	}
	Policies map[string]struct {
		Statement []struct {
			Effect, Resource string
			Action           []string
		}
	}
	Roles  map[string]any
	Alarms []struct {
		AlarmName, AlarmDescription, Namespace, MetricName, TreatMissingData string
		Dimensions                                                           []struct{ Name, Value string }
		AlarmActions                                                         []string
		OKActions                                                            []string
		Threshold                                                            float64
		Metrics                                                              []struct {
			Expression string
			MetricStat struct {
				Metric struct {
					Namespace, MetricName string
					Dimensions            []struct{ Name, Value string }
				}
			}
		}
	}
	Dashboards map[string]string

	Tasks        []taskDefinition
	AccessPoints []struct {
		AccessPointID string `json:"AccessPointId"`
		FileSystemID  string `json:"FileSystemId"`
		PosixUser     struct{ UID, GID int }
		RootDirectory struct {
			Path         string
			CreationInfo struct {
				OwnerUID, OwnerGID int
				Permissions        string
			}
		}
	}
	RolePolicies map[string]struct {
		Statement []struct {
			Effect, Resource string
			Action           []string
			Condition        map[string]map[string]string
		}
	}
	Targets []struct {
		ResourceID               string `json:"ResourceId"`
		MinCapacity, MaxCapacity int
	}
	Scaling []struct {
		ResourceID     string `json:"ResourceId"`
		TargetTracking struct {
			TargetValue                   float64
			CustomizedMetricSpecification struct {
				Metrics []struct {
					ID, Expression string
					ReturnData     bool
					MetricStat     struct {
						Stat   string
						Metric struct {
							Namespace, MetricName string
							Dimensions            []struct{ Name, Value string }
						}
					}
				}
			}
		} `json:"TargetTrackingScalingPolicyConfiguration"`
	}
}

// taskDefinition is what ECS runs.
type taskDefinition struct {
	Volumes []struct {
		Name string
		EFS  struct {
			FileSystemID, TransitEncryption string
			AuthorizationConfig             struct{ AccessPointID, IAM string }
		} `json:"efsVolumeConfiguration"`
	}
	Memory               string
	ContainerDefinitions []struct {
		Memory                 int
		User                   string
		ReadonlyRootFilesystem bool
		StopTimeout            int
		Command                []string
		Environment            []struct{ Name, Value string }
		MountPoints            []struct {
			SourceVolume, ContainerPath string
			ReadOnly                    bool
		}
		PortMappings []struct {
			Name          string
			ContainerPort int
		}
		HealthCheck struct{ Command []string }
	}
}

type stack struct {
	Status  string
	Outputs map[string]string
	Made    things
	Error   string
}

// wanted is a stack to make.
type wanted struct {
	Template   string            `json:"template"`
	Parameters map[string]string `json:"parameters,omitempty"`
}

// makeStacks has moto make stacks. It takes seconds to start, so all of them are made by one.
func makeStacks(t *testing.T, all ...wanted) []stack {
	t.Helper()
	python, err := filepath.Abs(filepath.Join(root, "build", "moto", "bin", "python"))
	require.NoError(t, err)
	require.FileExists(t, python, "run this test with make test-deploy, which installs moto")
	in, err := json.Marshal(all)
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), python, "testdata/stack.py")
	cmd.Env, cmd.Stdin = run.Environment(nil), bytes.NewReader(in)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	require.NotContains(t, stderr.String(), "not supported", "moto leaves something out")
	var stacks []stack
	require.NoError(t, json.Unmarshal(out, &stacks), string(out))
	require.Len(t, stacks, len(all))
	return stacks
}

// What a stack makes, with the parameters in their places; and that moto refuses something.
func TestStack(t *testing.T) {
	const topic = "arn:aws:sns:eu-west-1:123456789012:oncall"
	text := read(t, templates+"/karrot.yaml")
	spoilt := func(old, replacement string) wanted {
		require.Contains(t, text, old)
		return wanted{strings.Replace(text, old, replacement, 1), map[string]string{"Cluster": "east"}}
	}
	stacks := makeStacks(t,
		wanted{text, map[string]string{"Cluster": "east"}},
		wanted{text, map[string]string{"Cluster": "east", "AlarmTopic": topic, "LogGroup": "/lag/east", "Namespace": "Lag", "TimeLagLimit": "60"}},
		spoilt("        - Id: groups\n          Period: 120", "        - Period: 120"),
		spoilt("EvaluationPeriods: 3", "EvaluationPeriods: often"),
		wanted{text, nil},
	)
	checkStack(t, &stacks[0], "/karrot/burrow", "GumGum/Kafka/Burrow/ConsumerLag", 900)
	checkStack(t, &stacks[1], "/lag/east", "Lag", 60, topic)
	for i, want := range []string{"Missing required parameter", "Invalid type for parameter EvaluationPeriods", "Missing parameter Cluster"} {
		assert.Contains(t, stacks[2+i].Error, want)
	}
}

func checkStack(t *testing.T, s *stack, logGroup, namespace string, limit float64, actions ...string) {
	t.Helper()
	require.Empty(t, s.Error)
	assert.Equal(t, "CREATE_COMPLETE", s.Status)
	require.Len(t, s.Made.LogGroups, 1)
	group := s.Made.LogGroups[0]
	assert.Equal(t, logGroup, group.LogGroupName)
	assert.Equal(t, 3, group.RetentionInDays)

	policy := s.Made.Policies[s.Outputs["PolicyArn"]]
	require.Len(t, policy.Statement, 1)
	assert.Equal(t, "Allow", policy.Statement[0].Effect)
	// AWS puts :* behind it, moto does not.
	assert.Equal(t, group.LogGroupArn, strings.TrimSuffix(policy.Statement[0].Resource, ":*"), "the policy is for this log group alone")
	assert.Contains(t, s.Made.Roles, s.Outputs["TaskRoleArn"])

	found := map[string]bool{}
	for _, alarm := range s.Made.Alarms {
		// karrot-east-NAME-something
		name := strings.Split(alarm.AlarmName, "-")[2]
		found[name] = true
		assert.NotEmpty(t, alarm.AlarmDescription)
		assert.ElementsMatch(t, actions, alarm.AlarmActions, name)
		assert.ElementsMatch(t, actions, alarm.OKActions, "nobody is told that %s is over", name)
		if name == "Silent" {
			assert.Equal(t, "breaching", alarm.TreatMissingData)
			assert.Equal(t, "AWS/Logs IncomingLogEvents", alarm.Namespace+" "+alarm.MetricName)
			require.Len(t, alarm.Dimensions, 1)
			assert.Equal(t, logGroup, alarm.Dimensions[0].Value)
			continue
		}
		assert.Equal(t, "notBreaching", alarm.TreatMissingData)
		if name == "Unreadable" {
			require.Len(t, alarm.Metrics, 3)
			for _, m := range alarm.Metrics[1:] {
				assert.Equal(t, "AWS/Logs", m.MetricStat.Metric.Namespace)
				assert.Contains(t, []string{"EMFParsingErrors", "EMFValidationErrors"}, m.MetricStat.Metric.MetricName)
				assert.Equal(t, logGroup, m.MetricStat.Metric.Dimensions[0].Value)
			}
			continue
		}
		require.Len(t, alarm.Metrics, 1)
		expression := alarm.Metrics[0].Expression
		assert.Contains(t, expression, `FROM SCHEMA("`+namespace+`", cluster, "group") WHERE cluster = 'east' GROUP BY`)
		assert.NotContains(t, expression, "${")
		if name == "TimeLag" {
			assert.InDelta(t, limit, alarm.Threshold, 0)
		}
	}
	assert.Equal(t, map[string]bool{"GroupError": true, "GroupStopped": true, "GroupStalled": true, "TimeLag": true, "Silent": true, "Unreadable": true}, found)

	var dashboard struct {
		Widgets []struct {
			Properties struct {
				Region  string
				Metrics [][]struct{ Expression string }
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(s.Made.Dashboards["karrot-east"]), &dashboard))
	require.NotEmpty(t, dashboard.Widgets)
	for _, widget := range dashboard.Widgets {
		assert.Equal(t, "eu-west-1", widget.Properties.Region)
		assert.Regexp(t, `^SEARCH\('\{"`+regexp.QuoteMeta(namespace)+`",cluster,"group"\} MetricName="burrow\.group\.[a-z_.]+" cluster="east"', 'Maximum', 60\)$`, widget.Properties.Metrics[0][0].Expression)
	}
}
