/* The effective configuration of one deployment: file over code over defaults.
 *
 * One JSON object by Ray's option names (`json`) is the truth; the struct is read off it by the same
 * table that checks files. So a node gets `json` in a TARGET and builds the same struct again
 * (rs_deployment_conf_from_json), and INIT passes it on to the replica.
 *
 * Ownership: rs_deployment_conf_free; const members are borrowed from `json`.
 * Units:     times in nanoseconds.
 */
#pragma once

#include "core/config/config.h"
#include "core/resource/resources.h"

enum rs_source { RS_SOURCE_DEFAULT, RS_SOURCE_CODE, RS_SOURCE_APP, RS_SOURCE_FILE };
const char *rs_source_name(enum rs_source s); /* "default", "code", "application", "file" */

/* What a change of an option asks for, the heaviest first. */
enum rs_reload {
    RS_RELOAD_NONE = 0,
    RS_RELOAD_LIGHT = 1,       /* numbers of the controller or the queue: no replica is touched */
    RS_RELOAD_CONTROLLER = 2,  /* how replicas are looked after: no message to them */
    RS_RELOAD_RECONFIGURE = 4, /* a RECONFIGURE message to running replicas */
    RS_RELOAD_RESTART = 8,     /* new replicas in place of the old ones */
};

struct rs_autoscaling_conf {
    int min_replicas, max_replicas;
    int initial_replicas; /* -1: min_replicas */
    double target_ongoing_requests;
    int64_t metrics_interval, look_back_period;
    double upscaling_factor, downscaling_factor;
    int64_t upscale_delay, downscale_delay, downscale_to_zero_delay;
    const char *aggregation_function; /* "mean", "max", "min" */
    const char *policy_function;
    const json_t *policy_kwargs;
};

/* Keys of `rserve: {rollout}`, see fields_rollout.c. */
enum rs_rollout_when_full { RS_FULL_STOP_FIRST, RS_FULL_WAIT };
const char *rs_rollout_when_full_name(enum rs_rollout_when_full v);
#define RS_CANARY_STEPS_MAX 32
enum rs_canary_too_few { RS_CANARY_WAIT, RS_CANARY_PROMOTE, RS_CANARY_ROLLBACK };

struct rs_rollout_analysis_conf {
    bool enabled;
    double max_error_rate; /* 0 to 1; 1: not looked at */
    double max_p99_ratio;  /* < 0: not looked at */
    int min_requests;
};

struct rs_rollout_canary_conf {
    bool enabled;
    double steps[RS_CANARY_STEPS_MAX]; /* percent, each larger than the one before */
    size_t n_steps;
    int64_t each;          /* ns */
    double max_error_rate; /* 0 to 1; 1: not looked at */
    double max_p99_ratio;  /* < 0: not looked at */
    int min_requests;
    int too_few; /* enum rs_canary_too_few */
    const json_t *steps_json, *each_json;
};

struct rs_rollout_conf {
    int when_full;           /* enum rs_rollout_when_full */
    double pause_percent;    /* 0: none */
    unsigned pause_replicas; /* 0: none */
    int64_t min_ready;       /* ns */
    int64_t deadline;        /* ns; < 0: none */
    struct rs_rollout_analysis_conf analysis;
    struct rs_rollout_canary_conf canary;
    const json_t *pause_json;
};

/* Keys of `rserve: {autoscaling}`, see fields_foresight.c. */
struct rs_foresight_conf {
    const json_t *schedule; /* list of {"cron", "timezone", "min_replicas", "duration_s"} */
    bool predicts;
    int64_t period, ahead; /* ns */
    int periods;
    double capacity; /* target_capacity in percent; < 0: none */
    const json_t *period_json, *ahead_json;
};

/* Keys of `rserve: {health}` and `rserve: {replace}`, see fields_health.c. Times in ns. */
struct rs_health_conf {
    int64_t not_answering; /* -1: three times what a check and the pause before it take */
    double stuck_factor;   /* 0: off */
    int64_t stuck_after;
    int stuck_min_requests;
    double slow_factor; /* 0: off */
    int64_t slow_window;
    int slow_min_requests;
    int64_t slow_replace_after; /* -1: never */
    int max_ejected_percent;
};

struct rs_replace_conf {
    int64_t memory, memory_growth; /* bytes; -1: not looked at */
    int64_t age;                   /* -1 */
    int requests;                  /* -1 */
    int jitter_percent;
};

struct rs_deployment_conf {
    json_t *json;    /* owned */
    json_t *sources; /* owned: {option: "file" | "application" | "code" | "default"} */
    const char *name;
    int num_replicas; /* wanted at first: fixed number, or initial/min of autoscaling; after
                         target_capacity */
    bool autoscaling_enabled;
    struct rs_autoscaling_conf autoscaling; /* bounds after target_capacity */
    int max_ongoing_requests;
    int max_queued_requests; /* -1: no limit */
    int64_t graceful_shutdown_wait_loop, graceful_shutdown_timeout;
    int64_t health_check_period, health_check_timeout;
    int max_constructor_retry_count;
    const json_t *user_config; /* NULL: none */
    struct rs_resources resources;
    const json_t *ray_actor_options;  /* with num_cpus and the merged runtime_env */
    json_t *runtime_env;              /* of application and deployment merged; an object; owned */
    int max_replicas_per_node;        /* 0: no limit */
    int gang_size;                    /* 0: none */
    double rolling_update_percentage; /* 0 to 1 */
    int max_surge_percent;            /* what holds: 25 where nobody said anything */
    struct rs_rollout_conf rollout;
    struct rs_foresight_conf foresight;
    struct rs_health_conf health;
    struct rs_replace_conf replace;
    int backpressure_status;          /* 503 or 429 */
    int64_t backpressure_retry_after; /* ns; -1: the header's own default */
    struct rs_logging_conf logging;

    enum rs_deployment_kind kind;
    const char **command;    /* argv, NULL at the end; owned; NULL for kind python */
    const json_t *env;       /* object of text, or NULL */
    const char *cwd;         /* absolute; NULL: the application's app_dir */
    int port;                /* of kind http; 0: a free one for each replica */
    const char *ready_path;  /* NULL: ready when it accepts connections */
    int64_t ready_timeout;   /* ns */
    bool strip_prefix;       /* of kind http: the server does not see the route prefix */
    int64_t request_timeout; /* ns; -1: that of http_options */
    const json_t *calls;     /* array of names, or NULL */
    int64_t priority_ageing; /* ns in which a request that waits gains a class */
    int64_t shed_target;     /* ns; -1: nothing is shed */
    int64_t shed_interval;   /* ns */
};

/* `code` is what the decorator and .options() set (the "options" of a GRAPH deployment), NULL for a
 * deployment that only the file declares. Warnings and all errors go to `diags` (with the place in
 * the file where there is one); -1 when there are errors, with *ret untouched.
 */
RS_MUST_CHECK int rs_deployment_merge(struct rs_deployment_conf **ret, const struct rs_config *c,
                                      const struct rs_config_app *app, const char *name,
                                      const json_t *code, struct rs_diags *diags);
/* Back from conf->json. */
RS_MUST_CHECK int rs_deployment_conf_from_json(struct rs_deployment_conf **ret, const json_t *json,
                                               struct rs_error *err);
/* A deployment's runtime_env (or NULL) over its application's, key by key; env_vars are united. Of pip,
 * uv and conda, which exclude each other, the deployment's displaces the application's. A new object.
 */
json_t *rs_runtime_env_merge(const json_t *app, const json_t *own);
/* Its replicas have placement groups: it has bundles, or gangs. */
bool rs_deployment_conf_grouped(const struct rs_deployment_conf *c);
void rs_deployment_conf_free(struct rs_deployment_conf *c);
RS_DEFINE_AUTO(struct rs_deployment_conf *, rs_deployment_conf_free);

/* `deployment_config` of the details REST API, in Ray's shape. A new reference. */
json_t *rs_deployment_conf_json(const struct rs_deployment_conf *c);
/* Of all that needs new replicas when it changes; stable over runs and machines. */
uint64_t rs_deployment_conf_heavy_hash(const struct rs_deployment_conf *c);
/* The sum (bits) of what the changed options ask for. `fields` may be NULL; else the names of the
 * changed options are appended, parted by ", ". */
unsigned rs_deployment_conf_diff(const struct rs_deployment_conf *a,
                                 const struct rs_deployment_conf *b, struct rs_buf *fields);
/* The same, field by field, in the order of the table: [{"field": "autoscaling_config.max_replicas", "old",
 * "new", "asks": "restart", "reconfigure" or "in place"}]. New. */
json_t *rs_deployment_conf_changes(const struct rs_deployment_conf *a,
                                   const struct rs_deployment_conf *b);
const char *rs_reload_name(unsigned bits); /* "restart", ..; "nothing" */
/* n replicas under a target_capacity of `percent` (< 0: none): half rounds up, at least 1 unless n or
 * percent is 0. */
int rs_target_capacity_apply(int n, double percent);

/* Replaces {port} and {socket} in a word of the command or a value of env; "{{" is "{". Appends. */
void rs_command_expand(struct rs_buf *out, const char *word, int port, const char *socket);
