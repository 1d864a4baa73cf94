/* The process behind `run`, `head` and `worker`: an event loop, a node, and (but for a worker) a head,
 * until a signal ends it.
 *
 * First SIGINT or SIGTERM: drain, say what it waits for. Second: stop now.
 */
#pragma once

#include "cmd/options.h"
#include "core/base/error.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

struct rs_config;
struct rs_reload_change;

/* What the command line says about a node; shared by the verbs through RS_SERVE_OPTIONS. */
struct rs_serve_options {
    const char *host;
    int64_t port; /* -1: as the configuration says */
    const char *dashboard_host;
    int64_t dashboard_port;
    int64_t num_cpus, num_gpus, memory; /* -1: what the machine has */
    int64_t object_store;               /* 0: 30 % of the machine's memory */
    json_t *resources;
    const char *labels; /* NULL: none */
    const char *state_dir, *python;
    const char *access_log; /* NULL: as the configuration says */
    int64_t lanes, max_body, buffer_body, buffer_memory, header_timeout;
    int log_format; /* 0 text, 1 json */
    bool verbose, quiet;
};

#define RS_SERVE_DEFAULTS                                                                          \
    {                                                                                              \
        .port = -1, .dashboard_host = "127.0.0.1", .dashboard_port = 8265, .num_cpus = -1,         \
        .num_gpus = -1, .memory = -1, .buffer_body = 16 << 20, .header_timeout = 30                \
    }

extern const char *const rs_log_formats[];

/* Rows of an option table; `member` is the struct rs_serve_options inside `type`. */
#define RS_SERVE_AT(type, member, field)                                                           \
    offsetof(type, member) + offsetof(struct rs_serve_options, field)
#define RS_SERVE_HTTP_OPTIONS(type, member)                                                        \
    {"host",        0,                                                                             \
     RS_OPT_STRING, RS_SERVE_AT(type, member, host),                                               \
     "ADDRESS",     "address of the HTTP listener (default 127.0.0.1, or http_options.host)"},     \
    {                                                                                              \
        "port", 'p', RS_OPT_INT, RS_SERVE_AT(type, member, port), "PORT",                          \
            "port of the HTTP listener (default 8000, or http_options.port); 0: a free one",       \
            .min = 0, .max = 65535                                                                 \
    }
#define RS_SERVE_HEAD_OPTIONS(type, member)                                                        \
    {"dashboard-host", 0,                                                                          \
     RS_OPT_STRING,    RS_SERVE_AT(type, member, dashboard_host),                                  \
     "ADDRESS",        "address of the REST API (default 127.0.0.1)"},                             \
    {                                                                                              \
        "dashboard-port", 0, RS_OPT_INT, RS_SERVE_AT(type, member, dashboard_port), "PORT",        \
            "port of the REST API (default 8265); 0: a free one", .min = 0, .max = 65535           \
    }
#define RS_SERVE_NODE_OPTIONS(type, member)                                                        \
    {"num-cpus",   0,                                                                              \
     RS_OPT_FIXED, RS_SERVE_AT(type, member, num_cpus),                                            \
     "N",          "CPUs that replicas may reserve (default: those of the machine)",               \
     .min = 0,     .max = 100000000},                                                              \
        {"num-gpus",   0,                                                                          \
         RS_OPT_FIXED, RS_SERVE_AT(type, member, num_gpus),                                        \
         "N",          "GPUs that replicas may reserve (default 0)",                               \
         .min = 0,     .max = 10240000},                                                           \
        {"memory",    0,                                                                           \
         RS_OPT_SIZE, RS_SERVE_AT(type, member, memory),                                           \
         "SIZE",      "memory that replicas may reserve (default: that of the machine)",           \
         .min = 0,    .max = INT64_C(1) << 60},                                                    \
        {"object-store-memory",                                                                    \
         0,                                                                                        \
         RS_OPT_SIZE,                                                                              \
         RS_SERVE_AT(type, member, object_store),                                                  \
         "SIZE",                                                                                   \
         "memory that objects may take (default: 30 % of the machine's)",                          \
         .min = 1,                                                                                 \
         .max = INT64_C(1) << 60},                                                                 \
        {"resources", 0,                                                                           \
         RS_OPT_JSON, RS_SERVE_AT(type, member, resources),                                        \
         "JSON",      "further resources, such as '{\"disk\": 2}'"},                               \
        {"labels",      0,                                                                         \
         RS_OPT_STRING, RS_SERVE_AT(type, member, labels),                                         \
         "K=V,..",      "labels of the node, for label selectors"},                                \
        {"python",      0,                                                                         \
         RS_OPT_STRING, RS_SERVE_AT(type, member, python),                                         \
         "PATH",        "Python interpreter of applications that name none (default python3)"},    \
        {"lanes",    0,                                                                            \
         RS_OPT_INT, RS_SERVE_AT(type, member, lanes),                                             \
         "N",        "threads of the data plane (default: one per four cores)",                    \
         .min = 0,   .max = 256},                                                                  \
        {"max-body",  0,                                                                           \
         RS_OPT_SIZE, RS_SERVE_AT(type, member, max_body),                                         \
         "SIZE",      "longest request body taken; longer ones get 413 (default: no limit)",       \
         .min = 0,    .max = INT64_C(1) << 60},                                                    \
        {"buffer-body",                                                                            \
         0,                                                                                        \
         RS_OPT_SIZE,                                                                              \
         RS_SERVE_AT(type, member, buffer_body),                                                   \
         "SIZE",                                                                                   \
         "request body read before a replica is chosen; more is streamed (default 16M)",           \
         .min = 0,                                                                                 \
         .max = INT64_C(1) << 30},                                                                 \
        {"buffer-memory",                                                                          \
         0,                                                                                        \
         RS_OPT_SIZE,                                                                              \
         RS_SERVE_AT(type, member, buffer_memory),                                                 \
         "SIZE",                                                                                   \
         "memory for bodies of requests under way; beyond it new ones get 503 "                    \
         "(default: 25 % of the machine's)",                                                       \
         .min = 1,                                                                                 \
         .max = INT64_C(1) << 60},                                                                 \
        {"access-log",  0,                                                                         \
         RS_OPT_STRING, RS_SERVE_AT(type, member, access_log),                                     \
         "FILE",        "a line for each HTTP request; - is standard output (default: none)"},     \
        {"header-timeout",                                                                         \
         0,                                                                                        \
         RS_OPT_INT,                                                                               \
         RS_SERVE_AT(type, member, header_timeout),                                                \
         "SECONDS",                                                                                \
         "for a request's header from its first byte on, then 408 (default 30); 0: no limit",      \
         .min = 0,                                                                                 \
         .max = 86400},                                                                            \
        {"state-dir",                                                                              \
         0,                                                                                        \
         RS_OPT_STRING,                                                                            \
         RS_SERVE_AT(type, member, state_dir),                                                     \
         "DIR",                                                                                    \
         "logs and other files (default $XDG_STATE_HOME/rserve, /var/lib/rserve as root)"},        \
        {"log-format",                                                                             \
         0,                                                                                        \
         RS_OPT_CHOICE,                                                                            \
         RS_SERVE_AT(type, member, log_format),                                                    \
         "FORMAT",                                                                                 \
         "form of its messages",                                                                   \
         .choices = rs_log_formats},                                                               \
        {"verbose", 'v', RS_OPT_FLAG, RS_SERVE_AT(type, member, verbose), NULL, "say more"},       \
    {                                                                                              \
        "quiet", 'q', RS_OPT_FLAG, RS_SERVE_AT(type, member, quiet), NULL,                         \
            "only errors and the output of replicas"                                               \
    }

/* Where a serving process can be reached; "" where it cannot. */
struct rs_serve_ready {
    const char *node_id;
    char dashboard[300], join[80], http[300]; /* HOST:PORT */
    const char *log_dir;
};

struct rs_serve_conf {
    const char *kind; /* "run", "head" or "worker", for those who look for it (cmd/running.h); NULL:
                         * nobody is to find it */
    const struct rs_serve_options *options;
    struct rs_config *config; /* taken; NULL: none yet */
    const char *app_dir;   /* of configurations that come over REST; NULL: the working directory */
    const char *join;      /* a head's: where workers reach it, HOST:PORT; NULL: nowhere */
    const char *head;      /* a worker's: the head's address; NULL: this process is the head */
    const char *peer;      /* where other nodes reach this one, HOST:PORT; NULL: nowhere */
    const char *name;      /* of the node; NULL: the host's name */
    const char *side_host; /* of the ports below */
    int64_t health_port, metrics_port; /* of probes and of Prometheus; -1 and 0: none */
    int owner_fd; /* connection of the program that this is for, and ends with; 0: none. Taken */
    bool http;    /* has an HTTP listener */
    bool keep;    /* a head's: what it is told is kept in the state directory, and restored */
    bool forget;  /* but not what an earlier one was told */
    const char *later_http_host; /* of one without: opened later, as the first configuration
                                  * says, here where that does not say */
    bool fail_fast;              /* end with status 1 if an application fails to deploy */
    bool background;             /* nobody watches: what replicas write goes to their logs only */
    /* Once, when it listens and, as a worker, has joined; may be NULL. -1 ends it again. */
    int (*on_ready)(const struct rs_serve_ready *ready, void *arg);
    /* A source file below these folders (which end with NULL) has changed: `reload` gives the
     * configuration to deploy in its place. NULL: none is watched. */
    const char *const *reload_folders;
    int (*reload)(const struct rs_reload_change *change, struct rs_config **ret, void *arg,
                  struct rs_error *err);
    void *arg;
};

/* Serves until a signal. 0, -1 with `err`, or an exit status. */
RS_MUST_CHECK int rs_serve(const struct rs_serve_conf *conf, struct rs_error *err);

/* {"CPU": 2.0, ...} of this node as the options say. A new reference. */
RS_MUST_CHECK int rs_serve_resources(const struct rs_serve_options *o, json_t **ret,
                                     struct rs_error *err);
