/* The tables behind schema.h and what works on any of them. Internal to core/config.
 *
 * A table (struct rs_object) lists the keys of one mapping. Decoding walks nodes along it and gives
 * JSON by canonical names with values of the right type and nothing else; completing adds defaults;
 * filling stores the values into a C struct. Null and absent are the same after completing.
 */
#pragma once

#include "core/config/deployment.h"
#include "core/config/node.h"

#include <stddef.h>

enum rs_type {
    RS_TYPE_BOOL,     /* bool */
    RS_TYPE_INT,      /* int; null: -1 */
    RS_TYPE_REAL,     /* double; null: -1 */
    RS_TYPE_SECONDS,  /* int64_t nanoseconds; a number of seconds in the file; null: -1 */
    RS_TYPE_BYTES,    /* int64_t; an integer or a text such as "10MiB" in the file; null: -1 */
    RS_TYPE_TEXT,     /* const char *; null: NULL */
    RS_TYPE_CHOICE,   /* int: place in choices; a text in the file */
    RS_TYPE_REPLICAS, /* an integer or "auto" */
    RS_TYPE_LEVEL,    /* int: Python's number of a log level, or its name */
    RS_TYPE_COMMAND,  /* a text that is split into words, or the words */
    RS_TYPE_ANY,      /* const json_t * from here on; null: NULL */
    RS_TYPE_MAP,      /* of anything */
    RS_TYPE_TEXTS,    /* mapping of texts */
    RS_TYPE_AMOUNTS,  /* mapping of numbers >= 0 */
    RS_TYPE_STEP,     /* of a graph: a name, or a mapping whose keys `object` tells */
    RS_TYPE_STEPS,    /* mapping of such */
    RS_TYPE_OBJECT,   /* `object` tells its keys */
    RS_TYPE_LIST,     /* of `item`, which may be OBJECT or STEP */
};

enum {
    RS_F_REQUIRED = 1,
    RS_F_NULL = 2,        /* null may be written out */
    RS_F_STRICT = 4,      /* no "5" for 5 */
    RS_F_ABOVE = 8,       /* min itself is too small */
    RS_F_DEPLOY = 16,     /* Ray notices errors in here, but a wrong type, only when it deploys */
    RS_F_SPARSE = 32,     /* OBJECT: completing leaves it as the user wrote it */
    RS_F_DETAILS = 64,    /* part of deployment_config in REST, unless null */
    RS_F_INERT = 128,     /* understood, but nothing in rserve acts on it yet: a warning */
    RS_F_FORBIDDEN = 256, /* Ray knows the name and refuses it: `help` is the reason */
    RS_F_INHERIT = 512    /* absent is not null: something wider counts, as `help` says */
};

struct rs_field {
    const char *name;
    enum rs_type type, item;
    unsigned flags;
    const char *def;            /* JSON; NULL: null */
    double min, max;            /* used when one of them is not 0; max 0: none */
    const char *const *choices; /* ends with NULL */
    const struct rs_object *object;
    const char *alias_of; /* a legacy name of this field */
    /* Further check of a value of the right type: false with the rest of the sentence in `why`. */
    bool (*check)(const struct rs_node *n, struct rs_buf *why);
    enum rs_reload reload; /* NONE on an OBJECT: its fields say */
    size_t at;             /* RS_AT(struct, member), 0: not stored */
    const char *help;
};
#define RS_AT(type, member) (offsetof(type, member) + 1)
#define RS_AT_SELF 1 /* OBJECT: its fields are members of the struct around it */

struct rs_object {
    const char *place; /* for the reference: "applications[].deployments[]" */
    const char *intro;
    const struct rs_field *fields;
    size_t count;
    bool closed; /* unknown keys are errors */
};

#define RS_OBJECT(where, text, table, is_closed)                                                   \
    {                                                                                              \
        .place = where, .intro = text, .fields = table, .count = RS_COUNT(table),                  \
        .closed = is_closed                                                                        \
    }

extern const struct rs_object rs_object_config, rs_object_app, rs_object_deployment;
extern const struct rs_object rs_object_http, rs_object_grpc, rs_object_logging, rs_object_tracing;
extern const struct rs_object rs_object_autoscaling;
extern const struct rs_object rs_object_step, rs_object_switch, rs_object_answer, rs_object_cache,
    rs_object_shadow;
extern const struct rs_object rs_object_runtime, rs_object_runtime_config;
/* All of them, in the order of the reference; NULL at the end. */
extern const struct rs_object *const rs_objects[];

const struct rs_field *rs_field_find(const struct rs_object *o, const char *name);
/* "an integer >= 1 or \"auto\"": for messages and for the reference; not that null is allowed. */
void rs_field_expects(struct rs_buf *out, const struct rs_field *f);

/* Where a walk through a document stands. */
struct rs_walk {
    struct rs_diags *diags;
    const char *file;
    struct rs_buf path; /* "applications[0].name" */
    int deploy;         /* > 0: inside something with RS_F_DEPLOY */
    int line, column;   /* of what has no place of its own */
    bool code;          /* options from code: no place in a file, null means "not set" */
};

/* Adds a step and returns the length to go back to. */
size_t rs_walk_key(struct rs_walk *w, const char *key);
size_t rs_walk_index(struct rs_walk *w, size_t i);
void rs_walk_back(struct rs_walk *w, size_t len);
void rs_walk_error(struct rs_walk *w, int line, int column, const char *fmt, ...) RS_PRINTF(4, 5);
void rs_walk_warn(struct rs_walk *w, int line, int column, const char *fmt, ...) RS_PRINTF(4, 5);

/* A new object; what was refused is left out of it. */
json_t *rs_decode(struct rs_walk *w, const struct rs_object *o, const struct rs_node *map);
/* Adds what is absent with its default, in the order of the table; other members stay behind. A new
 * object. */
json_t *rs_complete(const struct rs_object *o, const json_t *values);
json_t *rs_field_default(const struct rs_field *f); /* new */
/* `values` is complete. Borrows texts and JSON from it. */
void rs_fill(const struct rs_object *o, const json_t *values, void *out);

/* `path` as it is if absolute, else below `dir`. The caller frees. */
char *rs_config_path(const char *dir, const char *path);
/* Of the canonical text: the order of keys does not count. */
uint64_t rs_json_hash(const json_t *json);

/* Of a duration as a checked document has it, a number of seconds or a text with a unit: ns. 0: none. */
int64_t rs_config_duration(const json_t *v);
/* A level by name or number in text form; -1: neither. */
int rs_log_level_number(const char *text);
/* Words of a command: blanks part them, quotes and backslash work as in a shell, nothing is expanded.
 * NULL: a quote is not closed. A new array. */
json_t *rs_command_split(const char *text);

/* "scheme://.." */
bool rs_is_url(const char *text);
/* Check of a field that holds a runtime_env: what excludes each other. */
bool rs_is_runtime_env(const struct rs_node *n, struct rs_buf *why);
/* Makes the paths in it absolute below `dir`, and puts the lines of a requirements file in place of its
 * name. In place; -1: such a file cannot be read. */
RS_MUST_CHECK int rs_runtime_env_resolve(json_t *env, const char *dir, struct rs_error *err);
/* Local paths that other machines do not have. The walk stands at what holds the runtime_env. */
void rs_rules_remote_env(struct rs_walk *w, const struct rs_node *env);

/* Rules over several options; `options` may be partial (a file's) or complete. `map` locates keys, or
 * NULL. The walk stands at the deployment. */
void rs_rules_deployment_file(struct rs_walk *w, const json_t *options, const struct rs_node *map);
void rs_rules_deployment(struct rs_walk *w, const json_t *options);
/* Routes of `rserve: {routes}`; the walk stands at the application. */
void rs_rules_routes(struct rs_walk *w, const json_t *app, const struct rs_node *map);
void rs_rules_app_file(struct rs_walk *w, const json_t *app, const struct rs_node *map);
void rs_rules_config_file(struct rs_walk *w, const json_t *config, const struct rs_node *map);
/* The graph of an application; `map` is the application's node. */
void rs_rules_graph(struct rs_walk *w, const json_t *app, const struct rs_node *map);
/* "module:attr" or "module.attr". */
bool rs_import_path_is_valid(const char *text);
/* NULL, or what is wrong with a route prefix. */
const char *rs_route_prefix_problem(const char *text);
