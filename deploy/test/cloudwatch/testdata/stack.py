"""Makes stacks in moto, each in an account of its own, and prints what there is then, or what was wrong.

The standard input is a JSON list of stacks: {"template": text, "parameters": {name: value}}.

moto's CloudFormation knows no alarms. Here it learns them: what a template says of one, with everything in it resolved, goes to
put_metric_alarm, whose parameters boto3 and moto check.
"""

import json
import os
import sys

os.environ.update(AWS_ACCESS_KEY_ID="example", AWS_SECRET_ACCESS_KEY="example", AWS_DEFAULT_REGION="eu-west-1")

import boto3
from moto import mock_aws
from moto.core.common_models import CloudFormationModel


class Alarm(CloudFormationModel):
    __module__ = "moto.cloudwatch.models"  # moto files its resources by module

    def __init__(self, name):
        self.physical_resource_id = name

    @staticmethod
    def cloudformation_name_type():
        return "AlarmName"

    @staticmethod
    def cloudformation_type():
        return "AWS::CloudWatch::Alarm"

    @classmethod
    def create_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
        properties = {name: value for name, value in cloudformation_json["Properties"].items() if name != "AlarmName"}
        boto3.client("cloudwatch").put_metric_alarm(AlarmName=resource_name, **properties)
        return cls(resource_name)


def there_is():
    logs, cloudwatch, iam = boto3.client("logs"), boto3.client("cloudwatch"), boto3.client("iam")
    policies = {
        policy["Arn"]: iam.get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])["PolicyVersion"]["Document"]
        for policy in iam.list_policies(Scope="Local")["Policies"]
    }
    # moto attaches no managed policies to roles that a stack makes.
    roles = {role["Arn"]: role["AssumeRolePolicyDocument"] for role in iam.list_roles()["Roles"]}
    return {
        "logGroups": logs.describe_log_groups()["logGroups"],
        "policies": policies,
        "roles": roles,
        "alarms": cloudwatch.describe_alarms()["MetricAlarms"],
        "dashboards": {
            entry["DashboardName"]: cloudwatch.get_dashboard(DashboardName=entry["DashboardName"])["DashboardBody"]
            for entry in cloudwatch.list_dashboards()["DashboardEntries"]
        },
    }


@mock_aws
def make(template, parameters={}):
    cloudformation = boto3.client("cloudformation")
    cloudformation.create_stack(
        StackName="karrot-east",
        TemplateBody=template,
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
    )
    stack = cloudformation.describe_stacks(StackName="karrot-east")["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    return {"status": stack["StackStatus"], "outputs": outputs, "made": there_is()}


def answer(stack):
    try:
        return make(**stack)
    except Exception as error:
        return {"error": str(error)}


print(json.dumps([answer(stack) for stack in json.load(sys.stdin)], default=str))
