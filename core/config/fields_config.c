/* Tables of the document: top level, applications, and what both share. */
#include "core/config/fields.h"

#include "core/base/network.h"
#include "core/base/text.h"
#include "core/config/fields_foresight.h"
#include "core/config/fields_health.h"
#include "core/config/fields_policy.h"
#include "core/config/fields_rollout.h"
#include "core/model/policy.h"

#include <string.h>

static const char *const proxy_locations[] = {"Disabled", "HeadOnly", "EveryNode", NULL};
static const char *const starts[] = {"fork", "spawn", NULL};
static const char *const encodings[] = {"TEXT", "JSON", NULL};

const char *rs_proxy_location_name(enum rs_proxy_location v)
{
    return proxy_locations[v];
}

static bool is_import_path(const struct rs_node *n, struct rs_buf *why)
{
    if (rs_import_path_is_valid(n->text))
        return true;
    rs_buf_puts(why, "expected \"module:attribute\" or \"module.attribute\", ");
    rs_node_show(why, n);
    return false;
}

static bool is_app_name(const struct rs_node *n, struct rs_buf *why)
{
    if (*n->text)
        return true;
    rs_buf_puts(why, "Application names must be nonempty.");
    return false;
}

static bool is_route_prefix(const struct rs_node *n, struct rs_buf *why)
{
    const char *problem = rs_route_prefix_problem(n->text);

    if (!problem)
        return true;
    rs_buf_printf(why, "Invalid route_prefix '");
    rs_text_fit(why, n->text, RS_NODE_KEY_SHOWN);
    rs_buf_printf(why, "', %s", problem);
    return false;
}

static bool is_file_or_dash(const struct rs_node *n, struct rs_buf *why)
{
    size_t len = strlen(n->text);

    if (len && n->text[len - 1] != '/')
        return true;
    rs_buf_puts(why, "expected a file or \"-\", ");
    rs_node_show(why, n);
    return false;
}

static bool is_log_level(const struct rs_node *n, struct rs_buf *why)
{
    if (rs_log_level_number(n->text) >= 0)
        return true;
    rs_buf_puts(why, "expected one of \"DEBUG\", \"INFO\", \"WARNING\", \"ERROR\", \"CRITICAL\" or "
                     "a number, ");
    rs_node_show(why, n);
    return false;
}

static bool are_record_attributes(const struct rs_node *n, struct rs_buf *why)
{
    static const char *const known[] = {
        "name",     "levelname", "levelno",    "pathname",    "filename", "module",
        "lineno",   "funcName",  "process",    "processName", "thread",   "threadName",
        "taskName", "message",   "asctime",    "created",     "msecs",    "relativeCreated",
        "exc_info", "exc_text",  "stack_info", "msg",         "args",
    };

    for (size_t i = 0; i < n->count; i++) {
        bool found = false;

        for (size_t k = 0; k < RS_COUNT(known) && !found; k++)
            found = n->items[i]->kind == RS_NODE_TEXT && strcmp(n->items[i]->text, known[k]) == 0;
        if (!found) {
            rs_buf_puts(why, "expected names of LogRecord attributes such as \"process\", ");
            rs_node_show(why, n->items[i]);
            return false;
        }
    }
    return true;
}

static bool are_networks(const struct rs_node *n, struct rs_buf *why)
{
    struct rs_network network;

    for (size_t i = 0; i < n->count; i++) {
        const struct rs_node *item = n->items[i];

        if (item->kind == RS_NODE_TEXT && rs_network_parse(&network, item->text) == 0)
            continue;
        rs_buf_puts(why, "expected addresses or networks such as \"10.0.0.0/8\", ");
        rs_node_show(why, item);
        return false;
    }
    return true;
}

static const struct rs_field http_rserve_fields[] = {
    {"access_log", RS_TYPE_TEXT, .flags = RS_F_NULL, .check = is_file_or_dash,
     .at = RS_AT(struct rs_http_options, access_log),
     .help = "File to which a line is appended for each HTTP request, relative to the folder of "
             "this file; \"-\" is standard output. null: no access log. --access-log goes over it. "
             "SIGUSR1 opens it anew, and so does the next line after it was renamed."},
    {"access_log_format", RS_TYPE_CHOICE, .flags = RS_F_NULL, .choices = encodings,
     .at = RS_AT(struct rs_http_options, access_log_format),
     .help =
         "TEXT: as Ray's proxy writes it, with further fields behind. JSON: an object per line. "
         "null: as logging_config.encoding says."},
    {"trusted_proxies", RS_TYPE_LIST, RS_TYPE_TEXT, .flags = RS_F_NULL, .check = are_networks,
     .at = RS_AT(struct rs_http_options, trusted_proxies),
     .help = "Addresses and networks of the proxies in front: their X-Forwarded-For, "
             "X-Forwarded-Proto and Forwarded tell the client's address and the scheme. null: "
             "127.0.0.1, as in Ray."},
    {"proxy_protocol", RS_TYPE_BOOL, .def = "false",
     .at = RS_AT(struct rs_http_options, proxy_protocol),
     .help = "Connections from trusted_proxies, which is required then, begin with a PROXY "
             "header, version 1 or 2; those from elsewhere are served as they are."},
};
static const struct rs_object http_rserve_object =
    RS_OBJECT("http_options.rserve", "What Ray's format cannot say. Ray ignores this key.",
              http_rserve_fields, false);

static const struct rs_field http_fields[] = {
    {"host", RS_TYPE_TEXT, .at = RS_AT(struct rs_http_options, host),
     .help = "Address to listen on. Not given: 127.0.0.1 under `rserve run`, 0.0.0.0 under "
             "`rserve head` (Ray: 0.0.0.0)."},
    {"port", RS_TYPE_INT, .def = "8000", .max = 65535, .at = RS_AT(struct rs_http_options, port),
     .help = "TCP port; 0 takes any free one."},
    {"root_path", RS_TYPE_TEXT, .def = "\"\"", .at = RS_AT(struct rs_http_options, root_path),
     .help = "ASGI root_path: the prefix under which a proxy in front publishes this server."},
    {"request_timeout_s", RS_TYPE_SECONDS, .flags = RS_F_NULL, .min = -1e9,
     .at = RS_AT(struct rs_http_options, request_timeout),
     .help = "Time limit of a request from its first byte; then 408. null or negative: none."},
    {"keep_alive_timeout_s", RS_TYPE_SECONDS, .def = "90", .max = 1e9,
     .at = RS_AT(struct rs_http_options, keep_alive_timeout),
     .help = "How long an idle connection is kept."},
    {"ssl_keyfile", RS_TYPE_TEXT, .flags = RS_F_NULL,
     .at = RS_AT(struct rs_http_options, ssl[RS_SSL_KEYFILE]),
     .help = "Private key for HTTPS, in PEM form, relative to the file; together with "
             "ssl_certfile. When the files change, new connections have the new certificate; one "
             "that cannot be used is logged, and the old one stays."},
    {"ssl_certfile", RS_TYPE_TEXT, .flags = RS_F_NULL,
     .at = RS_AT(struct rs_http_options, ssl[RS_SSL_CERTFILE]),
     .help = "Certificate for HTTPS and those above it, in PEM form, relative to the file; "
             "together with ssl_keyfile."},
    {"ssl_keyfile_password", RS_TYPE_TEXT, .flags = RS_F_NULL,
     .at = RS_AT(struct rs_http_options, ssl[RS_SSL_PASSWORD]),
     .help = "Password of the private key."},
    {"ssl_ca_certs", RS_TYPE_TEXT, .flags = RS_F_NULL,
     .at = RS_AT(struct rs_http_options, ssl[RS_SSL_CA]),
     .help = "Certificates of the authorities that clients' certificates are checked against, "
             "relative to the file. Clients without one are refused then."},
    {"rserve", RS_TYPE_OBJECT, .flags = RS_F_NULL, .def = "{}", .object = &http_rserve_object,
     .at = RS_AT_SELF, .help = "Extensions."},
};
const struct rs_object rs_object_http =
    RS_OBJECT("http_options", "The HTTP ingress. Read at start; a later change needs a restart.",
              http_fields, false);

static const struct rs_field grpc_fields[] = {
    {"port", RS_TYPE_INT, .def = "9000", .max = 65535, .at = RS_AT(struct rs_grpc_options, port),
     .help = "TCP port."},
    {"grpc_servicer_functions", RS_TYPE_LIST, RS_TYPE_TEXT, .flags = RS_F_INERT, .def = "[]",
     .at = RS_AT(struct rs_grpc_options, servicer_functions),
     .help = "Import paths of generated add_XServicer_to_server functions; empty: no gRPC."},
    {"request_timeout_s", RS_TYPE_SECONDS, .flags = RS_F_NULL | RS_F_INERT, .min = -1e9,
     .at = RS_AT(struct rs_grpc_options, request_timeout), .help = "Time limit of a call."},
    {"enable_reflection", RS_TYPE_BOOL, .flags = RS_F_INERT, .def = "true",
     .at = RS_AT(struct rs_grpc_options, enable_reflection), .help = "Offers server reflection."},
};
const struct rs_object rs_object_grpc =
    RS_OBJECT("grpc_options", "The gRPC ingress of Ray Serve.", grpc_fields, false);

static const struct rs_field logging_fields[] = {
    {"encoding", RS_TYPE_CHOICE, .def = "\"TEXT\"", .choices = encodings,
     .at = RS_AT(struct rs_logging_conf, encoding), .help = "Form of the log lines."},
    {"log_level", RS_TYPE_LEVEL, .def = "\"INFO\"", .check = is_log_level,
     .at = RS_AT(struct rs_logging_conf, level),
     .help = "Lines below are not written: a name of Python's logging, or its number."},
    {"logs_dir", RS_TYPE_TEXT, .flags = RS_F_NULL, .at = RS_AT(struct rs_logging_conf, logs_dir),
     .help = "Folder of the log files; null: `logs` in the state directory."},
    {"enable_access_log", RS_TYPE_BOOL, .def = "true",
     .at = RS_AT(struct rs_logging_conf, access_log), .help = "A line per request."},
    {"additional_log_standard_attrs", RS_TYPE_LIST, RS_TYPE_TEXT, .def = "[]",
     .check = are_record_attributes, .at = RS_AT(struct rs_logging_conf, extra_attrs),
     .help = "Attributes of Python's LogRecord to add to each line."},
};
const struct rs_object rs_object_logging = RS_OBJECT(
    "logging_config",
    "At top level for the system, in an application for its deployments that have none of "
    "their own, in a deployment for its replicas. Unknown keys are errors, as in Ray.",
    logging_fields, true);

static const struct rs_field tracing_fields[] = {
    {"enabled", RS_TYPE_BOOL, .def = "false", .at = RS_AT(struct rs_tracing_conf, enabled),
     .help = "Default: whether exporter_import_path is set."},
    {"exporter_import_path", RS_TYPE_TEXT, .def = "\"\"",
     .at = RS_AT(struct rs_tracing_conf, exporter_import_path),
     .help = "Function that returns the span processors."},
    {"sampling_ratio", RS_TYPE_REAL, .def = "0.01", .max = 1,
     .at = RS_AT(struct rs_tracing_conf, sampling_ratio), .help = "Share of requests traced."},
};
const struct rs_object rs_object_tracing =
    RS_OBJECT("tracing_config", "Unknown keys are errors, as in Ray.", tracing_fields, true);

static const struct rs_field controller_fields[] = {
    {"runtime_env", RS_TYPE_MAP, .flags = RS_F_NULL,
     .help = "Environment in which Ray's controller imports policies."},
};
static const struct rs_object controller_object =
    RS_OBJECT("controller_options", "Unknown keys are errors, as in Ray.", controller_fields, true);

static const struct rs_field app_policy_fields[] = {
    {"policy_function", RS_TYPE_TEXT,
     .def = "\"ray.serve.autoscaling_policy:default_autoscaling_policy\"",
     .help = "Import path of the function."},
    {"policy_kwargs", RS_TYPE_MAP, .def = "{}", .help = "Keyword arguments for it."},
};
static const struct rs_object app_policy_object = RS_OBJECT(
    "applications[].autoscaling_policy",
    "One function that decides for all deployments of the application.", app_policy_fields, false);

static const struct rs_field app_rserve_fields[] = {
    {"start", RS_TYPE_CHOICE, .def = "\"fork\"", .choices = starts,
     .at = RS_AT(struct rs_config_app, start),
     .help = "fork: the module is imported once and replicas are forked from that process. spawn: "
             "each replica is a fresh interpreter."},
    {"python", RS_TYPE_TEXT, .flags = RS_F_NULL, .at = RS_AT(struct rs_config_app, python),
     .help = "Interpreter: a path, relative to the file, or a name looked up on PATH. null: "
             "python3."},
    {"app_dir", RS_TYPE_TEXT, .flags = RS_F_NULL, .at = RS_AT(struct rs_config_app, app_dir),
     .help = "Folder that comes first on sys.path, relative to the file. null: the folder of the "
             "file."},
    {"revision", RS_TYPE_TEXT, .flags = RS_F_NULL,
     .help = "Any text. Another one imports the module anew and replaces all replicas, even where "
             "nothing else changed."},
    {"build_timeout_s", RS_TYPE_SECONDS, .flags = RS_F_ABOVE, .def = "300", .max = 1e6,
     .at = RS_AT(struct rs_config_app, build_timeout), .reload = RS_RELOAD_LIGHT,
     .help = "How long importing the module and building the application may take, once its "
             "runtime_env is there. Longer: the deploy has failed, and what ran before goes on."},
    {"ingress", RS_TYPE_TEXT, .flags = RS_F_NULL, .at = RS_AT(struct rs_config_app, ingress),
     .help = "Deployment that gets the HTTP requests of an application without import_path. null: "
             "the first one."},
    RS_POLICY_FIELDS,
    {"routes", RS_TYPE_LIST, RS_TYPE_OBJECT, .def = "[]", .object = &rs_object_route,
     .reload = RS_RELOAD_LIGHT,
     .help = "The keys from max_body on for some of the application's paths and methods."},
    {"graph", RS_TYPE_STEP, .flags = RS_F_NULL | RS_F_SPARSE, .object = &rs_object_step,
     .help =
         "A graph that takes the HTTP requests in place of a deployment, and is run by the node."},
};
static const struct rs_object app_rserve_object =
    RS_OBJECT("applications[].rserve", "What Ray's format cannot say. Ray ignores this key.",
              app_rserve_fields, false);

static const struct rs_field app_fields[] = {
    {"name", RS_TYPE_TEXT, .def = "\"default\"", .check = is_app_name,
     .at = RS_AT(struct rs_config_app, name), .help = "Unique in the file."},
    {"route_prefix", RS_TYPE_TEXT, .flags = RS_F_NULL | RS_F_DEPLOY, .def = "\"/\"",
     .check = is_route_prefix, .at = RS_AT(struct rs_config_app, route_prefix),
     .help = "Path under which the application answers: begins with /, ends without one, no "
             "braces; unique in the file. null: not reachable over HTTP."},
    {"import_path", RS_TYPE_TEXT, .check = is_import_path,
     .at = RS_AT(struct rs_config_app, import_path),
     .help = "module:attribute of a bound application or of a function that builds one. Required, "
             "unless every deployment has an rserve.kind of exec or http."},
    {"runtime_env", RS_TYPE_OBJECT, .flags = RS_F_DEPLOY | RS_F_SPARSE, .def = "{}",
     .object = &rs_object_runtime, .check = rs_is_runtime_env,
     .at = RS_AT(struct rs_config_app, runtime_env),
     .help = "Environment of the replicas: env_vars, working_dir, py_modules, pip and so on. A "
             "change starts them anew."},
    {"args", RS_TYPE_MAP, .def = "{}", .at = RS_AT(struct rs_config_app, args),
     .help = "Argument of the builder function that import_path names."},
    {"deployments", RS_TYPE_LIST, RS_TYPE_OBJECT, .def = "[]", .object = &rs_object_deployment,
     .help = "Options over those in the code, by deployment name; and deployments of kind exec and "
             "http."},
    {"autoscaling_policy", RS_TYPE_OBJECT, .flags = RS_F_NULL | RS_F_DEPLOY,
     .object = &app_policy_object, .at = RS_AT(struct rs_config_app, autoscaling_policy),
     .help = "Application-level autoscaling."},
    {"logging_config", RS_TYPE_OBJECT, .flags = RS_F_NULL | RS_F_SPARSE,
     .object = &rs_object_logging, .at = RS_AT(struct rs_config_app, logging_config),
     .help = "For deployments that have none of their own."},
    {"external_scaler_enabled", RS_TYPE_BOOL, .def = "false",
     .at = RS_AT(struct rs_config_app, external_scaler_enabled),
     .help = "Allows setting replica counts over REST; excludes autoscaling_config."},
    {"host", RS_TYPE_TEXT, .flags = RS_F_FORBIDDEN, .help = "set it in http_options instead"},
    {"port", RS_TYPE_INT, .flags = RS_F_FORBIDDEN, .help = "set it in http_options instead"},
    {"rserve", RS_TYPE_OBJECT, .flags = RS_F_NULL, .def = "{}", .object = &app_rserve_object,
     .at = RS_AT_SELF, .help = "Extensions."},
};
const struct rs_object rs_object_app =
    RS_OBJECT("applications[]", "One application: a graph of deployments behind one route.",
              app_fields, false);

static const struct rs_field config_fields[] = {
    {"proxy_location", RS_TYPE_CHOICE, .def = "\"EveryNode\"", .choices = proxy_locations,
     .at = RS_AT(struct rs_config, proxy_location), .help = "Which nodes have an HTTP ingress."},
    {"http_options", RS_TYPE_OBJECT, .def = "{}", .object = &rs_object_http,
     .at = RS_AT(struct rs_config, http), .help = "The HTTP ingress."},
    {"grpc_options", RS_TYPE_OBJECT, .def = "{}", .object = &rs_object_grpc,
     .at = RS_AT(struct rs_config, grpc), .help = "The gRPC ingress."},
    {"logging_config", RS_TYPE_OBJECT, .flags = RS_F_NULL, .object = &rs_object_logging,
     .def = "{}", .at = RS_AT(struct rs_config, logging), .help = "Logs of the system."},
    {"tracing_config", RS_TYPE_OBJECT, .flags = RS_F_NULL | RS_F_INERT, .def = "{}",
     .object = &rs_object_tracing, .at = RS_AT(struct rs_config, tracing),
     .help = "Traces of requests."},
    {"controller_options", RS_TYPE_OBJECT, .flags = RS_F_NULL | RS_F_INERT,
     .object = &controller_object, .help = "Options of Ray's controller process."},
    {"target_capacity", RS_TYPE_REAL, .flags = RS_F_NULL, .max = 100,
     .at = RS_AT(struct rs_config, target_capacity),
     .help = "Percent by which all replica counts are scaled, at least 1 each; 0 stops all."},
    {"applications", RS_TYPE_LIST, RS_TYPE_OBJECT, .flags = RS_F_REQUIRED, .object = &rs_object_app,
     .help = "The applications; those that a new file leaves out are "
             "deleted."},
};
const struct rs_object rs_object_config =
    RS_OBJECT("", "A ServeConfigV2 document, YAML or JSON.", config_fields, false);

extern const struct rs_object rs_object_options, rs_object_policy, rs_object_router,
    rs_object_backpressure, rs_object_gang, rs_object_actor, rs_object_extension, rs_object_ready,
    rs_object_shed;

const struct rs_object *const rs_objects[] = {
    &rs_object_config,
    &rs_object_http,
    &http_rserve_object,
    &rs_object_grpc,
    &rs_object_logging,
    &rs_object_tracing,
    &controller_object,
    &rs_object_app,
    &app_policy_object,
    &app_rserve_object,
    &rs_object_rate,
    &rs_object_route,
    &rs_object_deployment,
    &rs_object_options,
    &rs_object_autoscaling,
    &rs_object_runtime,
    &rs_object_runtime_config,
    &rs_object_policy,
    &rs_object_router,
    &rs_object_backpressure,
    &rs_object_gang,
    &rs_object_actor,
    &rs_object_extension,
    &rs_object_ready,
    &rs_object_shed,
    &rs_object_rollout,
    &rs_object_rollout_analysis,
    &rs_object_rollout_canary,
    &rs_object_foresight,
    &rs_object_foresight_entry,
    &rs_object_foresight_predict,
    &rs_object_health,
    &rs_object_replace,
    &rs_object_step,
    &rs_object_switch,
    &rs_object_answer,
    &rs_object_cache,
    &rs_object_shadow,
    NULL,
};
