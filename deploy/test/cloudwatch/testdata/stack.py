"""Makes stacks in moto, each in an account of its own, and prints what there is then, or what was wrong.

The standard input is a JSON list of stacks: {"template": text, "parameters": {name: value}}. Before each of them there are a role, an ECS
service and an EFS file system; FILE_SYSTEM in a parameter is its ID.

moto's CloudFormation knows no alarms and no scaling. Here it learns them: what a template says of one, with everything in it resolved, goes to
the call that makes it, whose parameters boto3 and moto check. It does not look at the rules of a template and at the values that it allows; they are applied here.
"""

import json
import os
import sys

os.environ.update(AWS_ACCESS_KEY_ID="example", AWS_SECRET_ACCESS_KEY="example", AWS_DEFAULT_REGION="eu-west-1")

import boto3
import moto.ecs.models
import moto.efs.models
import yaml
from moto import mock_aws
from moto.cloudformation.utils import yaml_tag_constructor
from moto.core.common_models import CloudFormationModel


# moto has ID and ARN, and does not tell templates.
moto.efs.models.AccessPoint.physical_resource_id = property(lambda self: self.access_point_id)
moto.efs.models.AccessPoint.get_cfn_attribute = lambda self, name: {"Arn": self.access_point_arn, "AccessPointId": self.access_point_id}[name]
moto.efs.models.AccessPoint.has_cfn_attr = classmethod(lambda cls, name: name in ("Arn", "AccessPointId"))


# moto loses the volumes of task definitions on their way.
OTHER_NAMES = {"EFSVolumeConfiguration": "efsVolumeConfiguration", "FilesystemId": "fileSystemId", "IAM": "iam"}


def as_the_call_has_it(value):
    if isinstance(value, dict):
        return {OTHER_NAMES.get(name, name[:1].lower() + name[1:]): as_the_call_has_it(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [as_the_call_has_it(inner) for inner in value]
    return value


def register_task_definition(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
    task = boto3.client("ecs").register_task_definition(**as_the_call_has_it(cloudformation_json["Properties"]))["taskDefinition"]
    return moto.ecs.models.ecs_backends[account_id][region_name].describe_task_definition(task["taskDefinitionArn"])


moto.ecs.models.TaskDefinition.create_from_cloudformation_json = classmethod(register_task_definition)


class Learned:
    """A resource that moto's CloudFormation does not know. A class of it has the module by which moto files it, and says how it is made.

    moto finds only those that have CloudFormationModel among their own bases."""

    name_in_template = None

    def __init__(self, name):
        self.physical_resource_id = name

    @classmethod
    def cloudformation_name_type(cls):
        return cls.name_in_template

    @classmethod
    def cloudformation_type(cls):
        return cls.type_in_template

    @classmethod
    def create_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
        cls.make(resource_name, cloudformation_json["Properties"])
        return cls(resource_name)


class Alarm(Learned, CloudFormationModel):
    __module__ = "moto.cloudwatch.models"
    type_in_template, name_in_template = "AWS::CloudWatch::Alarm", "AlarmName"

    @staticmethod
    def make(name, properties):
        properties = {key: value for key, value in properties.items() if key != "AlarmName"}
        boto3.client("cloudwatch").put_metric_alarm(AlarmName=name, **properties)


class ScalableTarget(Learned, CloudFormationModel):
    __module__ = "moto.applicationautoscaling.models"
    type_in_template = "AWS::ApplicationAutoScaling::ScalableTarget"

    @staticmethod
    def make(name, properties):
        capacity = {key: int(properties[key]) for key in ("MinCapacity", "MaxCapacity")}
        boto3.client("application-autoscaling").register_scalable_target(**{**properties, **capacity})


class ScalingPolicy(Learned, CloudFormationModel):
    __module__ = "moto.applicationautoscaling.models"
    type_in_template = "AWS::ApplicationAutoScaling::ScalingPolicy"

    @staticmethod
    def make(name, properties):
        tracking = properties["TargetTrackingScalingPolicyConfiguration"]
        tracking["TargetValue"] = float(tracking["TargetValue"])
        boto3.client("application-autoscaling").put_scaling_policy(**properties)


def given():
    """What a stack can be given, and what stands for it in parameters."""
    boto3.client("iam").create_role(RoleName="karrot-task", AssumeRolePolicyDocument="{}")
    ecs = boto3.client("ecs")
    ecs.create_cluster(clusterName="shop")
    ecs.register_task_definition(family="orders", containerDefinitions=[{"name": "orders", "image": "orders", "memory": 64}])
    ecs.create_service(cluster="shop", serviceName="orders", taskDefinition="orders", desiredCount=1)
    return {"FILE_SYSTEM": boto3.client("efs").create_file_system(CreationToken="karrot")["FileSystemId"]}


def there_is():
    ecs, scaling = boto3.client("ecs"), boto3.client("application-autoscaling")
    tasks = [ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"] for arn in ecs.list_task_definitions()["taskDefinitionArns"]]
    iam = boto3.client("iam")
    inline = {
        name: iam.get_role_policy(RoleName="karrot-task", PolicyName=name)["PolicyDocument"]
        for name in iam.list_role_policies(RoleName="karrot-task")["PolicyNames"]
    }
    return {
        "tasks": [task for task in tasks if task["family"] == "karrot"],
        "accessPoints": boto3.client("efs").describe_access_points()["AccessPoints"],
        "rolePolicies": inline,
        "targets": scaling.describe_scalable_targets(ServiceNamespace="ecs")["ScalableTargets"],
        "scaling": scaling.describe_scaling_policies(ServiceNamespace="ecs")["ScalingPolicies"],
        **there_is_of_cloudwatch(),
    }


def there_is_of_cloudwatch():
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


class Template(yaml.SafeLoader):
    """Reads a template with the short forms of its functions."""


Template.add_multi_constructor("", yaml_tag_constructor)


def apply_rules(template, parameters):
    template = yaml.load(template, Template)
    values = {name: parameter.get("Default") for name, parameter in template["Parameters"].items()} | parameters

    def value(node):
        if not isinstance(node, dict):
            return node
        ((function, argument),) = node.items()
        if function == "Ref":
            return values[argument]
        if function == "Fn::Equals":
            return value(argument[0]) == value(argument[1])
        if function == "Fn::Not":
            return not value(argument[0])
        raise NotImplementedError(function)

    for name, parameter in template["Parameters"].items():
        if "AllowedValues" in parameter and values[name] not in parameter["AllowedValues"]:
            raise ValueError(f"{name} must be one of {parameter['AllowedValues']}")
    for rule in template.get("Rules", {}).values():
        if value(rule["RuleCondition"]):
            for assertion in rule["Assertions"]:
                if not value(assertion["Assert"]):
                    raise ValueError(assertion["AssertDescription"])


@mock_aws
def make(template, parameters={}):
    apply_rules(template, parameters)
    stands_for = given()
    cloudformation = boto3.client("cloudformation")
    cloudformation.create_stack(
        StackName="karrot-east",
        TemplateBody=template,
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": name, "ParameterValue": stands_for.get(value, value)} for name, value in parameters.items()],
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
