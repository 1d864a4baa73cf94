/* What stage.c (requests that come), stage-call.c (calls of stages) and stage-metrics.c share. */
#pragma once

#include "core/graph/flow.h"
#include "core/loop/loop.h"
#include "net/router/stage.h"

struct rs_stage_series;

/* One graph; a new one of the same application takes its place, and it goes when it has nothing left. */
struct rs_live_graph {
    struct rs_list link; /* in lane->graphs */
    struct rs_lane *lane;
    char *app;
    struct rs_flow *flow;
    struct rs_list passages, spare; /* spare: struct rs_stage_call */
    unsigned n_spare, calls;        /* calls: struct rs_stage_call in use */
    bool retired, acting;
    struct rs_buf scratch;
    struct rs_stage_series *series; /* by step */
    struct rs_series *bytes;
    uint64_t bytes_shown;
};

/* A request that goes through a graph. */
struct rs_passage {
    struct rs_list link;
    struct rs_live_graph *graph;
    struct rs_request *front;
    struct rs_flow_info *info;
    struct rs_value *input;       /* while the body comes in */
    struct rs_run *run;           /* after that */
    struct rs_stage_call *stream; /* whose answer is passed on as it comes */
    int64_t held;                 /* bytes of bodies that came since, as the lane counts them */
};

/* What a task needs of the lane: a call, a timer, or both. */
struct rs_stage_call {
    struct rs_request r;
    struct rs_timer timer;
    struct rs_list link; /* in graph->spare */
    struct rs_live_graph *graph;
    struct rs_task *task;    /* NULL: nobody wants it any more */
    struct rs_value *answer; /* as far as it came */
    bool active;             /* `r` is with the router */
    bool replying;           /* we are in one of its replies */
    bool doomed;             /* to be cancelled as soon as we are not */
    bool streams;
};

/* --- stage.c ----------------------------------------------------------------------------------- */

/* Does what the machine wants done. The graph may be gone after that. */
void rs_stage_act(struct rs_live_graph *g);
/* More of a body behind a value's: a memfd from a certain length on. -1: there is no room. */
RS_MUST_CHECK int rs_stage_gather(struct rs_value *v, struct rs_chunk *body);
/* So many bytes more are held until it is over. */
void rs_passage_hold(struct rs_passage *p, uint64_t n);
/* The passage is over; its front is the caller's to tell. */
void rs_passage_free(struct rs_passage *p);

/* --- stage-call.c ------------------------------------------------------------------------------ */

void rs_stage_call(struct rs_live_graph *g, const struct rs_flow_action *a);
void rs_stage_uncall(struct rs_live_graph *g, const struct rs_flow_action *a);
void rs_stage_time(struct rs_live_graph *g, const struct rs_flow_action *a);

/* --- stage-metrics.c --------------------------------------------------------------------------- */

rs_flow_observe rs_stage_observe; /* `arg`: the graph */
void rs_stage_metrics_init(struct rs_live_graph *g);
void rs_stage_metrics_fini(struct rs_live_graph *g);
void rs_stage_show_bytes(struct rs_live_graph *g);
