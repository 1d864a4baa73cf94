/* A configuration file: ServeConfigV2 as Ray Serve 2.60 reads it, and what rserve adds to it.
 *
 * Text (YAML or JSON) -> nodes that know line and column (node.h) -> checked against the tables of
 * schema.h -> plain JSON by canonical names without defaults (`json` below) -> these structs.
 * core/config may include core/base, core/resource and core/model.
 *
 * Ownership: rs_config_free releases everything; const char * and json_t * members are borrowed from
 *            the config. The config does not change after the setters at the end.
 * Units:     times in nanoseconds; -1 or NULL stand for "none" where a comment says so.
 * Thread:    a parsed config is read by one thread at a time (jansson counts references).
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/json.h"
#include "core/config/diag.h"

#include <stdint.h>

#define RS_CONFIG_MAX (4u << 20) /* bytes of a document */

enum rs_proxy_location { RS_PROXY_DISABLED, RS_PROXY_HEAD_ONLY, RS_PROXY_EVERY_NODE };
enum rs_deployment_kind { RS_KIND_PYTHON, RS_KIND_EXEC, RS_KIND_HTTP };
enum rs_start { RS_CONFIG_FORK, RS_CONFIG_SPAWN };
enum rs_log_encoding { RS_ENCODING_TEXT, RS_ENCODING_JSON };

const char *rs_proxy_location_name(enum rs_proxy_location v); /* "EveryNode" */
const char *rs_deployment_kind_name(enum rs_deployment_kind v);

/* As rs_tls_file in net has them. */
enum rs_ssl_option { RS_SSL_KEYFILE, RS_SSL_CERTFILE, RS_SSL_PASSWORD, RS_SSL_CA, RS_SSL_COUNT };

extern const char *const rs_ssl_names[RS_SSL_COUNT]; /* "ssl_keyfile" and so on */

struct rs_http_options {
    const char *host; /* NULL: the file does not say (Ray: 0.0.0.0); the verb decides */
    int port;         /* 0: any free one */
    const char *root_path;
    int64_t request_timeout;       /* ns; -1: none */
    int64_t keep_alive_timeout;    /* ns */
    const char *ssl[RS_SSL_COUNT]; /* absolute paths, and the password; NULL: none */
    struct {
        int line, column; /* 0: not known */
    } ssl_at[RS_SSL_COUNT];
    bool proxy_protocol;
    const json_t *trusted_proxies; /* array of addresses and networks; NULL: not given */
    const char *access_log;        /* absolute, "-": standard output; NULL: none */
    int access_log_format;         /* enum rs_log_encoding */
};

struct rs_grpc_options {
    int port;
    const json_t *servicer_functions; /* array of text */
    int64_t request_timeout;          /* ns; -1: none */
    bool enable_reflection;
};

struct rs_logging_conf {
    enum rs_log_encoding encoding;
    int level; /* Python's numbers: DEBUG 10, INFO 20, WARNING 30, ERROR 40, CRITICAL 50 */
    const char *logs_dir; /* NULL: the state directory */
    bool access_log;
    const json_t *extra_attrs; /* additional_log_standard_attrs: array of text, or NULL */
};

struct rs_tracing_conf {
    bool enabled;
    const char *exporter_import_path; /* "" : none */
    double sampling_ratio;            /* 0 to 1 */
};

/* An entry of applications[].deployments: what the file says about one deployment. */
struct rs_config_deployment {
    const char *name;
    json_t *options; /* as in rs_config_app.json; includes "name" */
    enum rs_deployment_kind kind;
    int line, column;
};

struct rs_config_app {
    const char *name;
    const char *route_prefix; /* NULL: not reachable over HTTP */
    const char *import_path;  /* NULL: every deployment is of kind exec or http */
    /* What the user wrote: canonical names, no unknown keys, no defaults. `deployed_app_config` of
     * the REST API is rs_config_app_echo. */
    json_t *json;
    json_t *complete; /* the same with defaults and absolute paths: what the members borrow from */
    const json_t *args, *runtime_env; /* objects, never NULL */
    const json_t *autoscaling_policy; /* NULL: none */
    const json_t *logging_config;     /* as written; NULL: none */
    bool external_scaler_enabled;

    enum rs_start start;
    const char *python;    /* interpreter, path or name looked up on PATH; NULL: python3 */
    const char *app_dir;   /* absolute: what comes first on sys.path */
    int64_t build_timeout; /* ns that importing it may take */
    const char *ingress;   /* of an application without import_path: never NULL there */
    json_t *graph;         /* that takes the requests, spelled out for core/graph; NULL: none */

    struct rs_config_deployment *deployments;
    size_t deployment_count;

    /* The first deploy-time error: the application is to be shown as DEPLOY_FAILED with this message
     * and nothing of it is started. NULL: none. */
    char *failure;
    int line, column;
};

struct rs_config {
    char *file;              /* as given, for messages; may be NULL */
    char *dir;               /* absolute: what relative paths in the file are relative to */
    json_t *json, *complete; /* as in rs_config_app */
    enum rs_proxy_location proxy_location;
    struct rs_http_options http;
    struct rs_grpc_options grpc;
    struct rs_logging_conf logging;
    struct rs_tracing_conf tracing;
    const json_t *controller_options; /* NULL: none */
    double target_capacity;           /* percent, 0 to 100; -1: none */
    struct rs_config_app *apps;
    size_t app_count;
};

/* `file` names the document in messages, and its folder is where relative paths start (NULL: the
 * working directory). Returns 0 when the document can be used: there may be warnings, and errors
 * with deploy_time (those applications carry `failure`). Returns -1 when rs_diags_schema_errors; *ret
 * is then untouched.
 */
RS_MUST_CHECK int rs_config_parse(struct rs_config **ret, const char *text, size_t len,
                                  const char *file, struct rs_diags *diags);
/* Reads the file first; that it cannot be read is an error in `diags` too. */
RS_MUST_CHECK int rs_config_load(struct rs_config **ret, const char *file, struct rs_diags *diags);
/* Any YAML or JSON file of one document, bounded as a configuration is. A new reference. */
RS_MUST_CHECK int rs_yaml_load(json_t **ret, const char *file, struct rs_error *err);
/* A config of one application `module:app`, as if a file had named it. `name` NULL: "default".
 * `route_prefix` NULL: "/". `args` is an object or NULL, and stays the caller's. */
RS_MUST_CHECK int rs_config_from_import(struct rs_config **ret, const char *import_path,
                                        const char *name, const char *route_prefix,
                                        const json_t *args, struct rs_error *err);
void rs_config_free(struct rs_config *c);
RS_DEFINE_AUTO(struct rs_config *, rs_config_free);

/* What the command line says goes over the file. Each checks as the file would be checked. */
RS_MUST_CHECK int rs_config_set_name(struct rs_config *c, const char *name, struct rs_error *err);
RS_MUST_CHECK int rs_config_set_route_prefix(struct rs_config *c, const char *route_prefix,
                                             struct rs_error *err);
RS_MUST_CHECK int rs_config_set_host(struct rs_config *c, const char *host, struct rs_error *err);
RS_MUST_CHECK int rs_config_set_port(struct rs_config *c, int port, struct rs_error *err);
/* Of every application; relative to the working directory. */
RS_MUST_CHECK int rs_config_set_app_dir(struct rs_config *c, const char *dir, struct rs_error *err);
/* Of every application that does not name one itself. */
RS_MUST_CHECK int rs_config_default_app_dir(struct rs_config *c, const char *dir,
                                            struct rs_error *err);

const struct rs_config_app *rs_config_find_app(const struct rs_config *c, const char *name);
const struct rs_config_deployment *rs_config_app_find(const struct rs_config_app *app,
                                                      const char *deployment);
/* What REST shows as deployed_app_config. A new reference. */
json_t *rs_config_app_echo(const struct rs_config_app *app);
/* Changes when replicas of a Python application must be started anew whatever their options:
 * import_path, args, runtime_env, app_dir, python, start, revision. */
uint64_t rs_config_app_code_hash(const struct rs_config_app *app);
/* What that is the hash of, by the names of the options. New. */
json_t *rs_config_app_code(const struct rs_config_app *app);
/* What the application asks of the ingress: see core/model/policy.h. {}: nothing. New. */
json_t *rs_config_app_policy(const struct rs_config_app *app);
/* {"host": .., "port": .., ...} and so on as GET /api/serve/applications/ shows them. New. */
json_t *rs_http_options_json(const struct rs_http_options *o);
/* What stands in front of the ingress: ssl_*, the password included, proxy_protocol, trusted_proxies; those
 * that are set. New. */
json_t *rs_http_front_json(const struct rs_http_options *o);
json_t *rs_grpc_options_json(const struct rs_grpc_options *o);
/* Every name in the file must be one of `names`: else RS_NOT_FOUND with Ray's text "ValueError:
 * Deployment 'x' does not exist. Available: ['A', 'B']". Entries of kind exec and http are declared
 * by the file itself and always exist. */
RS_MUST_CHECK int rs_config_app_check_names(const struct rs_config_app *app,
                                            const char *const *names, size_t count,
                                            struct rs_error *err);

/* A graph as the user wrote it, and as it passed the rules, in its full form: {"root": step, "limits":
 * {..}}; every step with kind, name, key, all of its options that are not null, and the steps below it
 * in place of their names. A new object. */
json_t *rs_graph_conf_expand(const json_t *graph);

/* logging_config (NULL or partial) with its defaults. Borrows from `obj`. */
void rs_logging_conf_fill(struct rs_logging_conf *out, const json_t *obj);
