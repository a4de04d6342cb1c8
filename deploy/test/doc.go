// Package deploy tests what is in deploy/: rules, dashboards, charts and templates, with the tools that read them and with
// the built binary.
//
// KARROT_BIN names the binary; `make test-deploy` builds it first. prometheus, promtool and amtool are Debian's packages
// prometheus and prometheus-alertmanager; cfn-lint comes from PyPI, and what draws the dashboard from npm.
package deploy
