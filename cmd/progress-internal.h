/* Shared by progress.c (what has changed) and progress_text.c (how it is written). */
#pragma once

#include "cmd/progress.h"
#include "core/base/map.h"

struct deployment {
    char *status, *message;
    int running, target;
    bool seen; /* in the snapshot at hand */
};

struct app {
    char *status, *message;
    int64_t begun;             /* when it was seen under way, or rserve began */
    bool seen;                 /* in the snapshot at hand */
    struct rs_map deployments; /* name -> struct deployment */
};

struct rs_progress {
    struct rs_progress_conf conf;
    char *url;
    int64_t begun, now;
    bool fed;            /* once at least */
    struct rs_map apps;  /* name -> struct app */
    struct rs_buf block; /* as drawn; empty: none is on the screen */
    size_t block_lines;
    size_t busy, failed;
};

bool rs_progress_is_busy(const char *status);
bool rs_progress_is_failed(const char *status);
bool rs_progress_has_traceback(const char *message);

/* Events, each appended in the form that is configured. */
void rs_progress_say_app(const struct rs_progress *p, struct rs_buf *out,
                         const struct rs_progress_app *a);
void rs_progress_say_gone(const struct rs_progress *p, struct rs_buf *out, const char *app);
void rs_progress_say_deployment(const struct rs_progress *p, struct rs_buf *out, const char *app,
                                const struct rs_progress_deployment *d);
void rs_progress_say_ready(const struct rs_progress *p, struct rs_buf *out,
                           const struct rs_progress_app *a, int64_t took);
/* `deployment` NULL: the application itself failed. */
void rs_progress_say_failed(const struct rs_progress *p, struct rs_buf *out, const char *app,
                            const char *deployment, const char *status, const char *message);
void rs_progress_say_note(const struct rs_progress *p, struct rs_buf *out, const char *text);
/* The block for this snapshot; returns its lines. */
size_t rs_progress_draw(const struct rs_progress *p, const struct rs_progress_snapshot *s,
                        struct rs_buf *out);
