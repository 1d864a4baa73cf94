/* Tables of a deployment and of what its options hold. */
#include "core/config/fields_foresight.h"
#include "core/config/fields_health.h"
#include "core/config/fields_rollout.h"

#include <string.h>

static const char *const kinds[] = {"python", "exec", "http", NULL};
static const char *const aggregations[] = {"mean", "max", "min", NULL};
static const char *const strategies[] = {"PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD", NULL};
static const char *const gang_strategies[] = {"PACK", "SPREAD", NULL};
static const char *const gang_policies[] = {"RESTART_GANG", "RESTART_REPLICA", NULL};

const char *rs_deployment_kind_name(enum rs_deployment_kind v)
{
    return kinds[v];
}

static bool is_queue_limit(const struct rs_node *n, struct rs_buf *why)
{
    if (n->real == -1 || n->real >= 1)
        return true;
    rs_buf_puts(why, "expected -1 (no limit) or an integer >= 1, ");
    rs_node_show(why, n);
    return false;
}

static bool is_backpressure_status(const struct rs_node *n, struct rs_buf *why)
{
    if (n->real == 503 || n->real == 429)
        return true;
    rs_buf_puts(why, "expected 503 or 429, ");
    rs_node_show(why, n);
    return false;
}

static bool is_name(const struct rs_node *n, struct rs_buf *why)
{
    if (*n->text)
        return true;
    rs_buf_puts(why, "a name must not be empty");
    return false;
}

static bool is_command(const struct rs_node *n, struct rs_buf *why)
{
    rs_auto(rs_json_decrefp) json_t *words = NULL;

    if (n->kind == RS_NODE_LIST && n->count > 0 && *n->items[0]->text)
        return true;
    words = n->kind == RS_NODE_TEXT ? rs_command_split(n->text) : NULL;
    if (json_array_size(words) > 0)
        return true;
    if (n->kind == RS_NODE_TEXT && *n->text && !words)
        rs_buf_puts(why, "a quote is not closed, ");
    else
        rs_buf_puts(why, "expected a program and its arguments, ");
    rs_node_show(why, n);
    return false;
}

static bool is_ready_path(const struct rs_node *n, struct rs_buf *why)
{
    if (*n->text == '/')
        return true;
    rs_buf_puts(why, "expected a path such as \"/health\", ");
    rs_node_show(why, n);
    return false;
}

#define D "applications[].deployments[]."

static const struct rs_field options_fields[] = {
    {"num_cpus", RS_TYPE_REAL, .flags = RS_F_NULL, .def = "1", .max = 1e9,
     .help = "CPUs that a replica is counted with, also fractions; 0 is allowed."},
    {"num_gpus", RS_TYPE_REAL, .flags = RS_F_NULL, .max = 1e9,
     .help = "GPUs: up to 1 a share of one device, above 1 whole devices."},
    {"memory", RS_TYPE_REAL, .flags = RS_F_NULL, .max = 1e18, .help = "Bytes."},
    {"resources", RS_TYPE_AMOUNTS, .def = "{}", .help = "Amounts of custom resources by name."},
    {"accelerator_type", RS_TYPE_TEXT, .flags = RS_F_NULL,
     .help = "Model of accelerator that the node must have; counted as 0.001 of the resource "
             "accelerator_type:NAME."},
    {"label_selector", RS_TYPE_TEXTS, .flags = RS_F_NULL,
     .help = "Labels that the node must have: a value, \"!value\", \"in(a,b)\" or \"!in(a,b)\"."},
    {"fallback_strategy", RS_TYPE_LIST, RS_TYPE_MAP, .flags = RS_F_NULL,
     .help =
         "Each with a label_selector: they are tried in order where label_selector finds no room."},
    {"runtime_env", RS_TYPE_OBJECT, .flags = RS_F_DEPLOY | RS_F_SPARSE, .def = "{}",
     .object = &rs_object_runtime, .check = rs_is_runtime_env,
     .help = "Over that of the application, key by key; env_vars are united."},
};
const struct rs_object rs_object_options =
    RS_OBJECT(D "ray_actor_options",
              "What one replica needs. Given in a file, it replaces the whole of that in the code.",
              options_fields, false);

#define A(member) RS_AT(struct rs_autoscaling_conf, member)
const struct rs_object rs_object_policy;

static const struct rs_field autoscaling_fields[] = {
    {"min_replicas", RS_TYPE_INT, .def = "1", .max = 1e6, .reload = RS_RELOAD_LIGHT,
     .at = A(min_replicas), .help = "0 lets the deployment scale to zero."},
    {"initial_replicas", RS_TYPE_INT, .flags = RS_F_NULL, .max = 1e6, .reload = RS_RELOAD_LIGHT,
     .at = A(initial_replicas), .help = "At the start, from min to max; null: min_replicas."},
    {"max_replicas", RS_TYPE_INT, .def = "1", .min = 1, .max = 1e6, .reload = RS_RELOAD_LIGHT,
     .at = A(max_replicas), .help = "100 with num_replicas: auto."},
    {"target_ongoing_requests", RS_TYPE_REAL, .flags = RS_F_NULL | RS_F_ABOVE, .def = "2",
     .max = 1e9, .reload = RS_RELOAD_LIGHT, .at = A(target_ongoing_requests),
     .help = "Requests, running and queued, that each replica should have on average."},
    {"target_num_ongoing_requests_per_replica", RS_TYPE_REAL, .flags = RS_F_ABOVE, .max = 1e9,
     .alias_of = "target_ongoing_requests",
     .help = "Ray 2.60 ignores this name in silence; rserve goes by it."},
    {"metrics_interval_s", RS_TYPE_SECONDS, .flags = RS_F_ABOVE, .def = "10", .max = 1e9,
     .reload = RS_RELOAD_RECONFIGURE, .at = A(metrics_interval),
     .help = "How often load is measured (deprecated in Ray)."},
    {"look_back_period_s", RS_TYPE_SECONDS, .flags = RS_F_ABOVE, .def = "30", .max = 1e9,
     .reload = RS_RELOAD_RECONFIGURE, .at = A(look_back_period),
     .help = "Window over which load is averaged."},
    {"smoothing_factor", RS_TYPE_REAL, .flags = RS_F_ABOVE, .def = "1.0", .max = 1e9,
     .reload = RS_RELOAD_LIGHT,
     .help = "Deprecated: stands in where the two factors below are not given."},
    {"upscale_smoothing_factor", RS_TYPE_REAL, .flags = RS_F_NULL | RS_F_ABOVE, .max = 1e9,
     .reload = RS_RELOAD_LIGHT, .help = "Deprecated: use upscaling_factor."},
    {"downscale_smoothing_factor", RS_TYPE_REAL, .flags = RS_F_NULL | RS_F_ABOVE, .max = 1e9,
     .reload = RS_RELOAD_LIGHT, .help = "Deprecated: use downscaling_factor."},
    {"upscaling_factor", RS_TYPE_REAL, .flags = RS_F_NULL | RS_F_ABOVE, .max = 1e9,
     .reload = RS_RELOAD_LIGHT, .at = A(upscaling_factor),
     .help = "Above 1 grows faster, below 1 slower; null: smoothing_factor."},
    {"downscaling_factor", RS_TYPE_REAL, .flags = RS_F_NULL | RS_F_ABOVE, .max = 1e9,
     .reload = RS_RELOAD_LIGHT, .at = A(downscaling_factor),
     .help = "The same for shrinking; null: smoothing_factor."},
    {"upscale_delay_s", RS_TYPE_SECONDS, .def = "30", .max = 1e9, .reload = RS_RELOAD_LIGHT,
     .at = A(upscale_delay), .help = "How long more replicas must be wanted before they come."},
    {"downscale_delay_s", RS_TYPE_SECONDS, .def = "600", .max = 1e9, .reload = RS_RELOAD_LIGHT,
     .at = A(downscale_delay), .help = "How long fewer must be wanted before some go."},
    {"downscale_to_zero_delay_s", RS_TYPE_SECONDS, .flags = RS_F_NULL, .max = 1e9,
     .reload = RS_RELOAD_LIGHT, .at = A(downscale_to_zero_delay),
     .help = "The same for the last one; null: downscale_delay_s."},
    {"aggregation_function", RS_TYPE_CHOICE, .def = "\"mean\"", .choices = aggregations,
     .reload = RS_RELOAD_LIGHT, .help = "Over the window."},
    {"policy", RS_TYPE_OBJECT, .def = "{}", .object = &rs_object_policy,
     .reload = RS_RELOAD_RESTART, .help = "The function that decides."},
};
const struct rs_object rs_object_autoscaling =
    RS_OBJECT(D "autoscaling_config",
              "Scales by load. num_replicas: auto switches it on too, with max_replicas 100.",
              autoscaling_fields, false);

static const struct rs_field policy_fields[] = {
    {"policy_function", RS_TYPE_TEXT,
     .def = "\"ray.serve.autoscaling_policy:default_autoscaling_policy\"",
     .help = "Import path of a function or class."},
    {"policy_kwargs", RS_TYPE_MAP, .def = "{}", .help = "Keyword arguments for it."},
};
const struct rs_object rs_object_policy =
    RS_OBJECT(D "autoscaling_config.policy", "A custom autoscaling policy.", policy_fields, false);

static const struct rs_field router_fields[] = {
    {"request_router_class", RS_TYPE_TEXT,
     .def = "\"ray.serve._private.request_router:PowerOfTwoChoicesRequestRouter\"",
     .reload = RS_RELOAD_RESTART,
     .help = "Import path of a router of one's own, which runs in a process beside the node."},
    {"request_router_kwargs", RS_TYPE_MAP, .def = "{}", .reload = RS_RELOAD_RECONFIGURE,
     .help = "Keyword arguments for it."},
    {"request_routing_stats_period_s", RS_TYPE_REAL, .flags = RS_F_ABOVE, .def = "10", .max = 1e9,
     .reload = RS_RELOAD_RECONFIGURE, .help = "How often replicas report routing statistics."},
    {"request_routing_stats_timeout_s", RS_TYPE_REAL, .flags = RS_F_ABOVE, .def = "30", .max = 1e9,
     .reload = RS_RELOAD_RECONFIGURE, .help = "How long such a report may take."},
    {"initial_backoff_s", RS_TYPE_REAL, .flags = RS_F_ABOVE, .def = "0.025", .max = 1e9,
     .reload = RS_RELOAD_LIGHT, .help = "First pause of a router without a replica."},
    {"backoff_multiplier", RS_TYPE_REAL, .flags = RS_F_ABOVE, .def = "2", .max = 1e9,
     .reload = RS_RELOAD_LIGHT, .help = "Growth of the pause."},
    {"max_backoff_s", RS_TYPE_REAL, .flags = RS_F_ABOVE, .def = "0.5", .max = 1e9,
     .reload = RS_RELOAD_LIGHT, .help = "Longest pause."},
};
const struct rs_object rs_object_router = RS_OBJECT(
    D "request_router_config",
    "Without a class of its own, a request goes to the first free replica: the queue knows it.",
    router_fields, false);

static const struct rs_field backpressure_fields[] = {
    {"status_code", RS_TYPE_INT, .def = "503", .min = 1, .max = 999,
     .check = is_backpressure_status, .reload = RS_RELOAD_LIGHT,
     .at = RS_AT(struct rs_deployment_conf, backpressure_status), .help = "503 or 429."},
    {"retry_after_s", RS_TYPE_SECONDS, .flags = RS_F_NULL, .max = 1e9, .reload = RS_RELOAD_LIGHT,
     .at = RS_AT(struct rs_deployment_conf, backpressure_retry_after),
     .help = "Retry-After header, rounded up to whole seconds; null: none."},
};
const struct rs_object rs_object_backpressure = RS_OBJECT(
    D "backpressure_config",
    "The HTTP answer when max_queued_requests is met. Unknown keys are errors, as in Ray.",
    backpressure_fields, true);

static const struct rs_field gang_fields[] = {
    {"gang_size", RS_TYPE_INT, .flags = RS_F_REQUIRED, .min = 1, .max = 1e6,
     .at = RS_AT(struct rs_deployment_conf, gang_size), .help = "Replicas of a gang."},
    {"gang_placement_strategy", RS_TYPE_CHOICE, .def = "\"PACK\"", .choices = gang_strategies,
     .help = "On one node, or over many."},
    {"runtime_failure_policy", RS_TYPE_CHOICE, .def = "\"RESTART_GANG\"", .choices = gang_policies,
     .help = "What follows when one of them fails."},
};
const struct rs_object rs_object_gang = RS_OBJECT(
    D "gang_scheduling_config", "Replicas that start and fail together.", gang_fields, false);

static const struct rs_field actor_fields[] = {
    {"name", RS_TYPE_TEXT, .flags = RS_F_REQUIRED, .check = is_name,
     .help = "Unique in the deployment."},
    {"actor_class", RS_TYPE_TEXT, .flags = RS_F_REQUIRED, .help = "Import path of the class."},
    {"init_args", RS_TYPE_LIST, RS_TYPE_ANY, .def = "[]", .help = "For its constructor."},
    {"init_kwargs", RS_TYPE_MAP, .def = "{}", .help = "For its constructor."},
    {"actor_options", RS_TYPE_MAP, .def = "{}", .help = "Resources and so on."},
};
const struct rs_object rs_object_actor =
    RS_OBJECT(D "deployment_actors[]", "Helper processes that the replicas of a deployment share.",
              actor_fields, false);

#define C(member) RS_AT(struct rs_deployment_conf, member)

static const struct rs_field ready_fields[] = {
    {"path", RS_TYPE_TEXT, .flags = RS_F_NULL, .check = is_ready_path, .at = C(ready_path),
     .reload = RS_RELOAD_CONTROLLER,
     .help = "Asked until it answers 2xx, and as the health check after that. null: ready when "
             "the port or socket accepts connections."},
    {"timeout_s", RS_TYPE_SECONDS, .flags = RS_F_ABOVE, .def = "60", .max = 1e6,
     .at = C(ready_timeout), .reload = RS_RELOAD_CONTROLLER,
     .help = "A replica that is not ready by then has failed to start."},
};
const struct rs_object rs_object_ready = RS_OBJECT(
    D "rserve.ready", "When a replica of kind exec or http is ready.", ready_fields, false);

static const struct rs_field shed_fields[] = {
    {"target_delay_s", RS_TYPE_SECONDS, .flags = RS_F_NULL | RS_F_ABOVE, .max = 1e6,
     .at = C(shed_target), .reload = RS_RELOAD_LIGHT,
     .help =
         "How long requests may have to wait for a slot. While they wait longer, those of the "
         "lowest priority are refused with 503 and a Retry-After, as many as it takes; as many as "
         "there are slots always wait on. null: nothing is shed, however long the queue."},
    {"interval_s", RS_TYPE_SECONDS, .flags = RS_F_ABOVE, .def = "1", .max = 1e6,
     .at = C(shed_interval), .reload = RS_RELOAD_LIGHT,
     .help = "The wait must have been above the target for so long without a break: a shorter "
             "burst is taken on."},
};
const struct rs_object rs_object_shed =
    RS_OBJECT(D "rserve.shed",
              "What is refused when more comes than the replicas can do. Off unless it has a "
              "target_delay_s: set that well above the time that one request takes.",
              shed_fields, false);

static const struct rs_field extension_fields[] = {
    {"kind", RS_TYPE_CHOICE, .def = "\"python\"", .choices = kinds, .at = C(kind),
     .reload = RS_RELOAD_RESTART,
     .help = "python: a class or function of the application. exec: a program that speaks the "
             "replica protocol (rserve_replica.h). http: any HTTP server."},
    {"command", RS_TYPE_COMMAND, .check = is_command, .reload = RS_RELOAD_RESTART,
     .help = "Program and arguments, as a list or as one text that is split as a shell would, with "
             "no shell involved. {port} and {socket} are replaced, {{ stands for a brace."},
    {"env", RS_TYPE_TEXTS, .at = C(env), .reload = RS_RELOAD_RESTART,
     .help = "Added to the environment; {port} and {socket} are replaced."},
    {"cwd", RS_TYPE_TEXT, .flags = RS_F_NULL, .at = C(cwd), .reload = RS_RELOAD_RESTART,
     .help = "Working directory, relative to the file; null: app_dir."},
    {"port", RS_TYPE_INT, .flags = RS_F_NULL, .min = 1, .max = 65535, .at = C(port),
     .reload = RS_RELOAD_RESTART,
     .help = "Of kind http: the fixed port on which the one replica listens. null: each replica "
             "gets a free one as {port}, or {socket}."},
    {"ready", RS_TYPE_OBJECT, .def = "{}", .object = &rs_object_ready, .at = RS_AT_SELF,
     .help = "When a replica is ready."},
    {"strip_prefix", RS_TYPE_BOOL, .def = "true", .at = C(strip_prefix),
     .reload = RS_RELOAD_RESTART,
     .help = "Of kind http: the server gets paths without the application's route prefix, which "
             "X-Forwarded-Prefix tells. false: paths as the client sent them."},
    {"request_timeout_s", RS_TYPE_SECONDS, .flags = RS_F_NULL | RS_F_ABOVE, .max = 1e9,
     .at = C(request_timeout), .reload = RS_RELOAD_LIGHT,
     .help = "Over that of http_options, for requests to this deployment."},
    {"shed", RS_TYPE_OBJECT, .def = "{}", .object = &rs_object_shed, .at = RS_AT_SELF,
     .help = "What is refused under overload."},
    {"priority_ageing_s", RS_TYPE_SECONDS, .flags = RS_F_ABOVE, .def = "5", .max = 1e6,
     .at = C(priority_ageing), .reload = RS_RELOAD_LIGHT,
     .help = "A request that waits becomes one class more urgent in this time, so that none waits "
             "for ever: a request of class 0 is overtaken by requests of class 9 that came up to 9 "
             "times "
             "as long after it, and by no later ones."},
    {"calls", RS_TYPE_LIST, RS_TYPE_TEXT, .at = C(calls), .reload = RS_RELOAD_LIGHT,
     .help = "Deployments that this one calls: the edges of the graph."},
    {"rollout", RS_TYPE_OBJECT, .def = "{}", .object = &rs_object_rollout, .at = C(rollout),
     .help = "How a new version takes the place of the old one."},
    {"autoscaling", RS_TYPE_OBJECT, .def = "{}", .object = &rs_object_foresight, .at = C(foresight),
     .help = "Replicas that are there before the load is."},
    {"health", RS_TYPE_OBJECT, .def = "{}", .object = &rs_object_health, .at = C(health),
     .help = "When a replica is taken for ill."},
    {"replace", RS_TYPE_OBJECT, .def = "{}", .object = &rs_object_replace, .at = C(replace),
     .help = "When a replica that is well is replaced."},
};
const struct rs_object rs_object_extension = RS_OBJECT(
    D "rserve",
    "What Ray's format cannot say. Ray ignores this key. An application may consist of kinds "
    "exec and http only; one with an import_path reaches them with "
    "serve.get_deployment_handle(name).",
    extension_fields, false);

static const struct rs_field deployment_fields[] = {
    {"name", RS_TYPE_TEXT, .flags = RS_F_REQUIRED | RS_F_DETAILS, .check = is_name, .at = C(name),
     .help = "As in the code; of kind exec or http: any."},
    {"num_replicas", RS_TYPE_REPLICAS, .flags = RS_F_NULL | RS_F_DETAILS, .def = "1", .min = 1,
     .max = 1e6, .reload = RS_RELOAD_LIGHT, .at = C(num_replicas),
     .help = "\"auto\" stands for autoscaling_config with max_replicas 100. A number excludes "
             "autoscaling_config in the same place; in a file it goes over one in the code."},
    {"max_ongoing_requests", RS_TYPE_INT, .flags = RS_F_DETAILS, .def = "5", .min = 1, .max = 1e6,
     .reload = RS_RELOAD_RECONFIGURE, .at = C(max_ongoing_requests),
     .help = "Requests that one replica works on at a time, never more."},
    {"max_concurrent_queries", RS_TYPE_INT, .min = 1, .max = 1e6,
     .alias_of = "max_ongoing_requests",
     .help = "Ray 2.60 ignores this name in a file; rserve goes by it."},
    {"max_queued_requests", RS_TYPE_INT, .flags = RS_F_DETAILS | RS_F_STRICT, .def = "-1",
     .min = -1e9, .max = 1e9, .check = is_queue_limit, .reload = RS_RELOAD_LIGHT,
     .at = C(max_queued_requests),
     .help = "Requests that wait for a replica; one more gets 503. -1: no limit. Exact, where Ray "
             "counts per caller."},
    {"backpressure_config", RS_TYPE_OBJECT, .flags = RS_F_DETAILS, .def = "{}",
     .object = &rs_object_backpressure, .at = RS_AT_SELF, .help = "The answer to that one more."},
    {"user_config", RS_TYPE_ANY, .flags = RS_F_NULL | RS_F_DETAILS, .reload = RS_RELOAD_RECONFIGURE,
     .at = C(user_config),
     .help = "Given to reconfigure() of each replica, after its constructor and when it changes. A "
             "mapping, in a file."},
    {"autoscaling_config", RS_TYPE_OBJECT, .flags = RS_F_NULL | RS_F_DEPLOY | RS_F_DETAILS,
     .object = &rs_object_autoscaling, .at = RS_AT(struct rs_deployment_conf, autoscaling),
     .help = "Replaces that of the code as a whole."},
    {"graceful_shutdown_wait_loop_s", RS_TYPE_SECONDS, .flags = RS_F_DETAILS, .def = "2.0",
     .max = 1e9, .reload = RS_RELOAD_RECONFIGURE, .at = C(graceful_shutdown_wait_loop),
     .help = "A stopping replica looks this often whether its requests are done."},
    {"graceful_shutdown_timeout_s", RS_TYPE_SECONDS, .flags = RS_F_DETAILS, .def = "20.0",
     .max = 1e9, .reload = RS_RELOAD_CONTROLLER, .at = C(graceful_shutdown_timeout),
     .help = "A stopping replica is killed after this."},
    {"health_check_period_s", RS_TYPE_SECONDS, .flags = RS_F_DETAILS | RS_F_ABOVE, .def = "10.0",
     .max = 1e9, .reload = RS_RELOAD_CONTROLLER, .at = C(health_check_period),
     .help = "Time between health checks."},
    {"health_check_timeout_s", RS_TYPE_SECONDS, .flags = RS_F_DETAILS | RS_F_ABOVE, .def = "30.0",
     .max = 1e9, .reload = RS_RELOAD_CONTROLLER, .at = C(health_check_timeout),
     .help = "A check without an answer by then has failed."},
    {"ray_actor_options", RS_TYPE_OBJECT, .flags = RS_F_SPARSE | RS_F_DETAILS, .def = "{}",
     .object = &rs_object_options, .reload = RS_RELOAD_RESTART, .at = C(ray_actor_options),
     .help = "What one replica needs."},
    {"placement_group_bundles", RS_TYPE_LIST, RS_TYPE_AMOUNTS, .flags = RS_F_DETAILS,
     .reload = RS_RELOAD_RESTART,
     .help = "Bundles reserved for each replica, which runs in the first."},
    {"placement_group_strategy", RS_TYPE_CHOICE, .flags = RS_F_DEPLOY | RS_F_DETAILS,
     .choices = strategies, .reload = RS_RELOAD_RESTART,
     .help = "Where the bundles lie; needs placement_group_bundles."},
    {"placement_group_bundle_label_selector", RS_TYPE_LIST, RS_TYPE_TEXTS, .flags = RS_F_DETAILS,
     .reload = RS_RELOAD_RESTART,
     .help = "Labels for each bundle, or one for all; needs placement_group_bundles."},
    {"max_replicas_per_node", RS_TYPE_INT, .flags = RS_F_DEPLOY | RS_F_DETAILS, .min = 1,
     .max = 100, .reload = RS_RELOAD_RESTART, .at = C(max_replicas_per_node),
     .help = "Excludes placement_group_bundles and gang_scheduling_config."},
    {"logging_config", RS_TYPE_OBJECT, .flags = RS_F_SPARSE, .object = &rs_object_logging,
     .reload = RS_RELOAD_RECONFIGURE, .help = "Of the replicas."},
    {"request_router_config", RS_TYPE_OBJECT, .flags = RS_F_DEPLOY | RS_F_DETAILS, .def = "{}",
     .object = &rs_object_router, .help = "Ray's choice of a replica."},
    {"gang_scheduling_config", RS_TYPE_OBJECT, .flags = RS_F_NULL | RS_F_DEPLOY | RS_F_DETAILS,
     .object = &rs_object_gang, .reload = RS_RELOAD_RESTART, .at = RS_AT_SELF,
     .help = "Replica counts must be multiples of gang_size."},
    {"deployment_actors", RS_TYPE_LIST, RS_TYPE_OBJECT,
     .flags = RS_F_NULL | RS_F_DEPLOY | RS_F_DETAILS, .object = &rs_object_actor,
     .reload = RS_RELOAD_RESTART, .help = "Helper actors that the replicas share."},
    {"rolling_update_percentage", RS_TYPE_REAL, .flags = RS_F_DETAILS | RS_F_ABOVE, .def = "0.2",
     .max = 1, .reload = RS_RELOAD_LIGHT, .at = C(rolling_update_percentage),
     .help = "Share of the replicas that a rollout stops at a time before it starts new ones."},
    {"max_surge_percent", RS_TYPE_INT, .flags = RS_F_DETAILS | RS_F_INHERIT, .max = 100,
     .reload = RS_RELOAD_LIGHT, .at = C(max_surge_percent),
     .help =
         "Above 0 a rollout first starts up to this many more, at least one, and then stops old "
         "ones. 0: it stops rolling_update_percentage of them first, as Ray does. Not given: "
         "25."},
    {"max_constructor_retry_count", RS_TYPE_INT, .def = "20", .min = 1, .max = 1e6,
     .reload = RS_RELOAD_CONTROLLER, .at = C(max_constructor_retry_count),
     .help = "Failed starts after which the deployment is DEPLOY_FAILED. Ray knows it in code "
             "only."},
    {"version", RS_TYPE_TEXT, .flags = RS_F_NULL, .reload = RS_RELOAD_RESTART,
     .help = "Deprecated, in code only: another text means new replicas."},
    {"rserve", RS_TYPE_OBJECT, .def = "{}", .object = &rs_object_extension, .at = RS_AT_SELF,
     .help = "Extensions."},
};
const struct rs_object rs_object_deployment = RS_OBJECT(
    "applications[].deployments[]",
    "Goes over what the code says, which goes over the defaults. \"Change\" tells what a new "
    "value asks for: restart (new replicas), reconfigure (a message to the running ones), "
    "live (nothing of a replica).",
    deployment_fields, false);
