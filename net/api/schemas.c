/* The tables of schema.h: every shape of /api/v1. */
#include "core/base/error.h"
#include "net/api/schema.h"

static const struct rs_api_field error_fields[] = {
    {"error", "string", "what was wanted, what was found, and what to do, in one line"},
    {NULL},
};

static const struct rs_api_field route_fields[] = {
    {"method", "string", NULL},
    {"path", "string", "{..} stands for any one part"},
    {"help", "string", NULL},
    {NULL},
};

static const struct rs_api_field version_fields[] = {
    {"version", "string", "of Ray's dashboard API"},
    {"ray_version", "string", "whose API this is"},
    {"ray_commit", "string", NULL},
    {"session_name", "string", NULL},
    {"rserve_version", "string", NULL},
    {"rserve_commit", "string", NULL},
    {"driver_socket", "string?", "where programs of this machine connect"},
    {NULL},
};

static const struct rs_api_field replica_fields[] = {
    {"replica_id", "string", NULL},
    {"app", "string", NULL},
    {"deployment", "string", NULL},
    {"node_id", "string", NULL},
    {"node", "string", "name of the node", "rserve.node"},
    {"state", "string", "as Ray has it", NULL,
     "STARTING|UPDATING|RECOVERING|RUNNING|STOPPING|PENDING_MIGRATION|STOPPED"},
    {"phase", "string", "rserve's own state, finer than Ray's", "rserve.state"},
    {"pid", "integer?", "of the process on its node"},
    {"rank", "integer", NULL, "rserve.rank"},
    {"version", "string", "changes with all that asks for new replicas", "rserve.version"},
    {"start_time_s", "number", "seconds since 1970"},
    {"ready_time_s", "number", "how long it took to be ready", "rserve.ready_time_s"},
    {"uptime_s", "number?", NULL, "rserve.uptime_s"},
    {"in_flight", "integer", "requests that it works on", "rserve.in_flight"},
    {"done", "integer", "requests that it finished", "rserve.done"},
    {"errors", "integer", "of them, that failed", "rserve.errors"},
    {"message", "string?", "what there is to say of its state", "rserve.message"},
    {"health", "any", "what is the matter with it, or how it ended, in figures; null: it is well",
     "rserve.health"},
    {"log_file_path", "string", "on its node"},
    {NULL},
};

static const struct rs_api_field replicas_fields[] = {
    {"replicas", "[Replica]", NULL},
    {NULL},
};

static const struct rs_api_field dropped_fields[] = {
    {"queue_full", "integer", "refused: max_queued_requests was met"},
    {"shed", "integer", "refused: they would have waited too long"},
    {"expired", "integer", "their time was over before they were begun"},
    {NULL},
};

static const struct rs_api_field deployment_fields[] = {
    {"name", "string", NULL},
    {"app", "string", NULL},
    {"status", "string", NULL, NULL,
     "UPDATING|HEALTHY|UNHEALTHY|DEPLOY_FAILED|UPSCALING|DOWNSCALING"},
    {"status_trigger", "string", "what brought it into that status"},
    {"message", "string", NULL},
    {"kind", "string", "what its replicas are", "rserve.kind", "python|exec|http"},
    {"version", "string", "changes with all that asks for new replicas", "rserve.version"},
    {"target_num_replicas", "integer", NULL},
    {"pending", "integer", "replicas that are wanted and not placed or not started",
     "rserve.pending"},
    {"blocked", "string?", "why some are not placed", "rserve.blocked"},
    {"queued", "integer", "requests that wait for a replica", "rserve.queued"},
    {"in_flight", "integer", "requests that replicas work on", "rserve.in_flight"},
    {"dropped", "Dropped", "requests that no replica began", "rserve.dropped"},
    {"start_failures", "integer", NULL, "rserve.start_failures"},
    {"deaths", "integer", "replicas that ended by themselves", "rserve.deaths"},
    {"last_error", "string?", NULL, "rserve.last_error"},
    {"notice", "string?", "what it waits for", "rserve.notice"},
    {"autoscaling", "any", "why it scales, or does not", "rserve.autoscaling"},
    {"rollout", "any", "how far another version has come, while one does", "rserve.rollout",
     .optional = true},
    {"required_resources", "{number}", "of each replica"},
    {"deployment_config", "object", "its options, as Ray has them"},
    {"replicas", "[Replica]", NULL},
    {"recent_dead_replicas", "[Replica]", NULL},
    {NULL},
};

static const struct rs_api_field deployments_fields[] = {
    {"deployments", "[Deployment]", NULL},
    {NULL},
};

static const struct rs_api_field application_fields[] = {
    {"name", "string", NULL},
    {"status", "string", NULL, NULL,
     "NOT_STARTED|DEPLOYING|DEPLOY_FAILED|RUNNING|UNHEALTHY|DELETING"},
    {"message", "string", NULL},
    {"route_prefix", "string?", NULL},
    {"docs_path", "string?", NULL},
    {"source", "string", "who deployed it: a configuration, or a program", NULL,
     "declarative|imperative"},
    {"etag", "string?", "of its configuration, for If-Match; null: it is being deleted"},
    {"last_deployed_time_s", "number", "seconds since 1970"},
    {"external_scaler_enabled", "boolean", NULL},
    {"building", "boolean", "its code is being imported", "rserve.building"},
    {"start", "string?", "how its replicas are started", "rserve.start", "fork|spawn"},
    {"start_reason", "string?", NULL, "rserve.start_reason"},
    {"config", "object?", "as it was deployed", "deployed_app_config"},
    {"deployments", "[Deployment]", NULL},
    {NULL},
};

static const struct rs_api_field applications_fields[] = {
    {"applications", "[Application]", NULL},
    {NULL},
};

static const struct rs_api_field config_fields[] = {
    {"etag", "string", "for If-Match"},
    {"config", "object?", "ServeConfigV2, as it was deployed last; null: none was"},
    {NULL},
};

static const struct rs_api_field change_fields[] = {
    {"changed", "boolean", "false: all of it was so already, and nothing happens"},
    {"etag", "string?", "of what holds now; null: it is deleted"},
    {"message", "string", NULL},
    {NULL},
};

static const struct rs_api_field node_replica_fields[] = {
    {"replica_id", "string", NULL},
    {"app", "string", NULL},
    {"deployment", "string", NULL},
    {"state", "string", NULL},
    {NULL},
};

static const struct rs_api_field node_fields[] = {
    {"node_id", "string", NULL},
    {"name", "string", NULL},
    {"address", "string?", "where other nodes reach it"},
    {"version", "string", "of its rserve"},
    {"resources", "{number}", "all that it has"},
    {"free", "{number}", "what no replica has reserved"},
    {"labels", "{string}", NULL},
    {"draining", "boolean", "it takes nothing new"},
    {"health", "any", "why it is suspect; null: it is well"},
    {"proxy", "string?", "status of its HTTP listener; null: it has none"},
    {"replicas", "[NodeReplica]", "what runs there"},
    {NULL},
};

static const struct rs_api_field nodes_fields[] = {
    {"nodes", "[Node]", NULL},
    {NULL},
};

static const struct rs_api_field sample_fields[] = {
    {"name", "string", "as Prometheus has it: a histogram has several"},
    {"labels", "{string}", NULL},
    {"value", "number?", "null: not a number, or infinite"},
    {NULL},
};

static const struct rs_api_field family_fields[] = {
    {"name", "string", NULL},
    {"type", "string", NULL, NULL, "counter|gauge|histogram|summary|untyped"},
    {"help", "string", NULL},
    {"samples", "[Sample]", NULL},
    {NULL},
};

static const struct rs_api_field metrics_fields[] = {
    {"time_s", "number", "seconds since 1970"},
    {"families", "[MetricFamily]", NULL},
    {NULL},
};

static const struct rs_api_field log_line_fields[] = {
    {"time_s", "number", "seconds since 1970, by the clock of its node"},
    {"app", "string", NULL},
    {"deployment", "string?", "null: of the application as a whole, such as its import"},
    {"replica", "string?", NULL},
    {"node", "string", "name of the node"},
    {"stream", "string", "rserve: what is said about the process", NULL, "stdout|stderr|rserve"},
    {"text", "string", "what is not UTF-8 is U+FFFD"},
    {NULL},
};

static const struct rs_api_field logs_fields[] = {
    {"lines", "[LogLine]", "in the order of their times"},
    {"cursor", "string", "what comes after these: ?cursor="},
    {"more", "boolean", "there is more already"},
    {"lost", "boolean", "lines before these are not kept any more"},
    {"silent", "[string]", "nodes that did not answer in time"},
    {NULL},
};

static const struct rs_api_field scale_fields[] = {
    {"target_num_replicas", "integer", "0 or more"},
    {NULL},
};

static const struct rs_api_field message_fields[] = {
    {"message", "string", NULL},
    {NULL},
};

static const struct rs_api_field plan_fields[] = {
    {"id", "integer", "for GET /api/v1/plan/{plan}, for a minute"},
    {"state", "string", "building: changed code is being imported; ask again", NULL,
     "building|ready"},
    {"applications", "[any]", "each with its deployments (docs/deploy.md)", NULL, NULL, true},
    {"summary", "any", "how many deployments change in which way", NULL, NULL, true},
    {"fits", "boolean", "every replica finds room", NULL, NULL, true},
    {"resources", "any", "taken now, at the peak of the roll, and there are", NULL, NULL, true},
    {NULL},
};

static const struct rs_api_field revision_fields[] = {
    {"revision", "integer", NULL},
    {"time_s", "number", "since when it ran, in seconds since 1970"},
    {"who", "string?", "ordered it"},
    {"rollback_of", "integer?", "the revision that it took up again"},
    {"current", "boolean", "it is what is desired now"},
    {"config", "any", "of the application, as in a ServeConfigV2"},
    {NULL},
};

static const struct rs_api_field history_fields[] = {
    {"name", "string", NULL},
    {"revisions", "[Revision]", "the newest first"},
    {"back_to", "integer?", "what a rollback without a number goes to"},
    {NULL},
};

static const struct rs_api_field rollback_fields[] = {
    {"to", "integer", "revision; without it the last one that ran before", NULL, NULL, true},
    {NULL},
};

static const struct rs_api_field rollout_fields[] = {
    {"action", "string",
     "resume: one that is paused goes on, one that is stopped is tried again; abort: back to the "
     "old "
     "version"},
    {NULL},
};

static const struct rs_api_field rolled_back_fields[] = {
    {"name", "string", NULL},
    {"revision", "integer", "that is being deployed again"},
    {NULL},
};

static const struct rs_api_field any_fields[] = {{NULL}};

const struct rs_api_schema rs_api_schemas[] = {
    {"Error", "A refusal.", error_fields},
    {"Route", "A path and a method of this API.", route_fields},
    {"Version", "Versions.", version_fields},
    {"Replica", "One process that serves.", replica_fields},
    {"Replicas", "Replicas that live.", replicas_fields},
    {"Dropped", "Requests that no replica began, since the deployment is there.", dropped_fields},
    {"Deployment", "Replicas of one kind.", deployment_fields},
    {"Deployments", "Deployments of all applications.", deployments_fields},
    {"Application", "What was deployed under one name.", application_fields},
    {"Applications", "All applications.", applications_fields},
    {"Config", "The desired configuration.", config_fields},
    {"Change", "What became of an order.", change_fields},
    {"NodeReplica", "A replica, as its node has it.", node_replica_fields},
    {"Node", "A machine, or a part of one.", node_fields},
    {"Nodes", "All nodes.", nodes_fields},
    {"Sample", "One figure.", sample_fields},
    {"MetricFamily", "Figures of one name.", family_fields},
    {"Metrics", "All figures at one time.", metrics_fields},
    {"LogLine", "A line of output.", log_line_fields},
    {"Logs", "Output of replicas.", logs_fields},
    {"Scale", "A number of replicas.", scale_fields},
    {"Message", "It was taken.", message_fields},
    {"Events", "What happened.", any_fields, .open = true},
    {"Plan", "What a deploy would do.", plan_fields},
    {"Revision", "A configuration of an application that ran.", revision_fields},
    {"History", "Configurations of an application that ran.", history_fields},
    {"Rollback", "Where to go back to.", rollback_fields},
    {"RolledBack", "It is on its way.", rolled_back_fields},
    {"Rollout", "What becomes of a rollout.", rollout_fields},
    {"Why", "Why it is as it is.", any_fields, .open = true},
};
const size_t rs_api_n_schemas = RS_COUNT(rs_api_schemas);
