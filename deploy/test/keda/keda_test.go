// Package keda holds the ScaledObject of deploy/kubernetes against KEDA's own definition of the resource. It is a module of its
// own, because the definition comes with all of KEDA's module, whose requirements are none of ours.
package keda

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/kedacore/keda/v2/version" // the module, for the definition that lies in it
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"sigs.k8s.io/yaml"
)

const scaledObject = "../../kubernetes/keda-scaledobject.yaml"

// definition is KEDA's schema of a version of the ScaledObject.
func definition(t *testing.T, version string) *apiextensions.JSONSchemaProps {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/kedacore/keda/v2").Output()
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "config", "crd", "bases", "keda.sh_scaledobjects.yaml"))
	require.NoError(t, err)
	var crd v1.CustomResourceDefinition
	require.NoError(t, yaml.UnmarshalStrict(text, &crd))
	require.Equal(t, "ScaledObject", crd.Spec.Names.Kind)
	for _, v := range crd.Spec.Versions {
		if crd.Spec.Group+"/"+v.Name == version {
			out := new(apiextensions.JSONSchemaProps)
			require.NoError(t, v1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v.Schema.OpenAPIV3Schema, out, nil))
			return out
		}
	}
	require.Fail(t, "KEDA has no "+version)
	return nil
}

// complaints are what an API server would say about a resource, those fields included that it would drop in silence.
func complaints(t *testing.T, text []byte) []string {
	t.Helper()
	raw, err := yaml.YAMLToJSONStrict(text)
	require.NoError(t, err)
	resource := map[string]any{}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	require.NoError(t, decoder.Decode(&resource))
	version, _ := resource["apiVersion"].(string)
	schema := definition(t, version)

	var out []string
	validator, _, err := validation.NewSchemaValidator(schema)
	require.NoError(t, err)
	for _, found := range validation.ValidateCustomResource(nil, resource, validator) {
		out = append(out, found.Error())
	}
	known, err := structural.NewStructural(schema)
	require.NoError(t, err)
	for _, dropped := range pruning.PruneWithOptions(resource, known, true, structural.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}) {
		out = append(out, dropped+" is unknown")
	}
	return out
}

func TestScaledObject(t *testing.T) {
	text, err := os.ReadFile(scaledObject)
	require.NoError(t, err)
	require.Empty(t, complaints(t, text))
	// What the definition refuses, so that its silence says something.
	for name, c := range map[string]struct{ old, text, want string }{
		"no target":           {"scaleTargetRef:\n    name: orders", "scaleTargetRef: {}", "spec.scaleTargetRef.name"},
		"a word for a number": {"maxReplicaCount: 12", "maxReplicaCount: many", "spec.maxReplicaCount"},
		"a misspelt field":    {"fallback:", "fallbak:", "spec.fallbak is unknown"},
		"half a fallback":     {"    replicas: 3\n", "", "spec.fallback.replicas"},
		"another fallback":    {"currentReplicasIfHigher", "currentReplicasIfhigher", "spec.fallback.behavior"},
		"a wrong metricType":  {"metricType: AverageValue", "metricType: [AverageValue]", "metricType"},
		"no trigger's type":   {"- type: prometheus\n      metricType", "- metricType", "spec.triggers[0].type"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, string(text), c.old)
			found := complaints(t, []byte(strings.Replace(string(text), c.old, c.text, 1)))
			require.NotEmpty(t, found)
			assert.Contains(t, strings.Join(found, "\n"), c.want)
		})
	}
}
