/* A declared graph, ready to be run: the steps that `rserve: {graph: ..}` of an application spells, as
 * a tree. core/config checked and spelled them out (rs_graph_conf_expand); names are resolved.
 *
 * Ownership: the plan owns all below it, in one arena. It does not change; who runs it counts on it.
 * Units:     times in nanoseconds, sizes in bytes.
 */
#pragma once

#include "core/base/arena.h"
#include "core/base/buf.h"
#include "core/base/cleanup.h"
#include "core/base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum rs_step_kind {
    RS_STEP_CALL,     /* asks a deployment */
    RS_STEP_SEQUENCE, /* one after the other, each with what the one before gave */
    RS_STEP_PARALLEL, /* all with the same input; `merge` makes one of what they give */
    RS_STEP_SWITCH,   /* one of them */
    RS_STEP_SPLIT,    /* once for each element of a JSON array */
    RS_STEP_FALLBACK, /* the next one where one fails */
    RS_STEP_ANSWER,   /* a fixed answer */
    RS_STEP_COUNT
};
const char *rs_step_kind_name(enum rs_step_kind k);

enum rs_merge {
    RS_MERGE_OBJECT,
    RS_MERGE_ARRAY,
    RS_MERGE_CONCAT,
    RS_MERGE_VOTE,
    RS_MERGE_MEAN,
    RS_MERGE_FIRST,
    RS_MERGE_COUNT
};
const char *rs_merge_name(enum rs_merge m);

enum rs_switch_by { RS_SWITCH_HEADER, RS_SWITCH_JSON, RS_SWITCH_WEIGHT };

/* What became of a step; those above OK are what `on` of a fallback may name. */
enum rs_outcome {
    RS_OUTCOME_OK,
    RS_OUTCOME_ERROR,    /* it failed, or answered 5xx */
    RS_OUTCOME_TIMEOUT,  /* its time was over, or it answered 504 */
    RS_OUTCOME_OVERLOAD, /* no room: its queue is full, or it answered 429 or 503 */
    RS_OUTCOME_REFUSED,  /* it answered another 4xx: the request is at fault */
    RS_OUTCOME_COUNT
};
const char *rs_outcome_name(enum rs_outcome o);

struct rs_step {
    enum rs_step_kind kind;
    unsigned index;   /* in the plan: 0 is the root, each step before those below it */
    const char *name; /* of the stage, unique in the graph */
    const char *key;  /* of the branch */
    struct rs_step *parent;
    struct rs_step **kids;
    unsigned n_kids, at; /* at: its place among its parent's kids */
    bool tail;           /* its answer is the graph's: it may be passed on as it comes */
    bool is_shadow;      /* it and all above it up to `shadow` */

    int64_t timeout; /* 0: none */
    struct {
        int64_t ttl; /* 0: no cache */
        uint64_t max_bytes;
        const char **headers; /* in lower case */
        unsigned n_headers;
        unsigned index; /* among the plan's caches */
    } cache;
    struct {
        struct rs_step *to; /* NULL: none */
        double share;       /* of the requests, 0 to 1 */
        unsigned limit;     /* that may be under way */
    } shadow;

    /* call */
    const char *deployment;
    const char *path, *query; /* path NULL: the client's, with its query */
    const char *method;       /* NULL: see net/router/stage.c */
    const char **headers;     /* name, value, ... */
    unsigned n_headers;       /* of both */
    unsigned retries;
    /* parallel */
    enum rs_merge merge;
    const char *field; /* also of a switch by JSON, and of a split: where in the document */
    unsigned need;
    /* switch */
    enum rs_switch_by by;
    const char *header;  /* that decides, or to stick to; NULL: the request's id */
    const char **values; /* of the kids, or NULL where by weight */
    double *weights;
    bool has_default; /* the last kid */
    /* split */
    unsigned parallelism, max_items;
    /* fallback */
    unsigned on; /* bits: 1 << enum rs_outcome */
    /* answer */
    unsigned status;
    const char *type, *text;
};

struct rs_plan {
    struct rs_arena arena;
    struct rs_step **steps;
    unsigned count, n_caches;
    uint64_t max_body;
    unsigned max_ongoing;
    double retry_budget;
    char *text; /* what it was made of: plans of the same text are the same */
};

enum { RS_PLAN_STEPS_MAX = 256, RS_PLAN_DEPTH_MAX = 16 };

/* `json` as rs_graph_conf_expand gives it; from another machine perhaps: RS_INVALID. */
RS_MUST_CHECK int rs_plan_new(struct rs_plan **ret, const json_t *json, struct rs_error *err);
void rs_plan_free(struct rs_plan *p);
RS_DEFINE_AUTO(struct rs_plan *, rs_plan_free);

/* Appends the tree, a step a line with its options. */
void rs_plan_print(const struct rs_plan *p, struct rs_buf *out);
