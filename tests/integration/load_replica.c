/* A replica in C for tests under load: what it answers follows from the request's query, so that an
 * answer that went to another request is found out.
 *
 *     load_replica LOG THREADS
 *
 * Query:   id (text), n (bytes of the answer: the id again and again), ms (how long it takes), chunks
 *          (the answer is a stream of so many lines), gate (waits until LOG.gate is there). POST: the
 *          body is the answer. While LOG.slow.PID is there, ms are ten times as many. The answer
 *          tells its process in x-pid.
 * LOG:     "begin ID" for each request that it begins, one write each; "over N" when more requests
 *          than `limit` of its user_config are under way at once.
 */
#define RSERVE_REPLICA_IMPLEMENTATION
#include "rserve_replica.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int log_fd = -1;
static char gate[4000], slow[4000];
static atomic_int limit, under_way;

static void note(const char *what, const char *value)
{
    char line[256];
    int n = snprintf(line, sizeof(line), "%s %s\n", what, value);

    if (write(log_fd, line, (size_t)n) != n)
        _exit(7);
}

static void query_text(const char *query, const char *name, char *to, size_t size)
{
    size_t len = strlen(name);

    to[0] = '\0';
    for (const char *at = query; at && *at; at = strchr(at, '&') ? strchr(at, '&') + 1 : NULL) {
        if (strncmp(at, name, len) != 0 || at[len] != '=')
            continue;
        snprintf(to, size, "%.*s", (int)strcspn(at + len + 1, "&"), at + len + 1);
    }
}

static long query_number(const char *query, const char *name)
{
    char text[24];

    query_text(query, name, text, sizeof(text));
    return strtol(text, NULL, 10);
}

/* For the node a request is over when the end of its answer was read: it counts until just before. */
static void leave(void)
{
    atomic_fetch_sub(&under_way, 1);
}

static void wait_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static int stream(struct rserve_response *res, const char *id, long chunks, long ms)
{
    int r = rserve_stream_begin(res, 200, "text/plain");
    char line[128];

    for (long i = 0; r == 0 && i < chunks; i++) {
        int n = snprintf(line, sizeof(line), "%s:%ld\n", id, i);

        r = rserve_stream_chunk(res, line, (size_t)n);
        wait_ms(ms / chunks);
    }
    leave();
    return r == 0 ? rserve_stream_end(res) : r;
}

static int respond_with_id(struct rserve_response *res, const char *id, long n)
{
    long len = (long)strlen(id) + 1;
    char *body = malloc((size_t)n + 1);
    int r;

    if (!body)
        _exit(8);
    for (long i = 0; i < n; i++)
        body[i] = i % len < len - 1 ? id[i % len] : '|';
    leave();
    r = rserve_respond(res, 200, "text/plain", body, (size_t)n);
    free(body);
    return r;
}

static int handle(const struct rserve_request *req, struct rserve_response *res, void *arg)
{
    int now = atomic_fetch_add(&under_way, 1) + 1, most = atomic_load(&limit);
    long chunks = query_number(req->query, "chunks"), ms = query_number(req->query, "ms");
    char id[100], text[24];

    (void)arg;
    if (most && now > most) {
        snprintf(text, sizeof(text), "%d", now);
        note("over", text);
    }
    query_text(req->query, "id", id, sizeof(id));
    note("begin", id);
    snprintf(text, sizeof(text), "%ld", (long)getpid());
    (void)rserve_add_header(res, "x-pid", text);
    while (query_number(req->query, "gate") && access(gate, F_OK) < 0)
        wait_ms(5);
    if (ms && access(slow, F_OK) == 0)
        ms *= 10;
    if (chunks)
        return stream(res, id, chunks, ms);
    if (ms)
        wait_ms(ms);
    if (strcmp(req->http_method, "POST") != 0)
        return respond_with_id(res, id, query_number(req->query, "n"));
    leave();
    return rserve_respond(res, 200, "text/plain", req->body, req->body_len);
}

static void set_limit(const char *json, size_t len, const char *path)
{
    char text[24] = "";

    if (rserve_json_text(json, len, path, text, sizeof(text)) > 0)
        atomic_store(&limit, (int)strtol(text, NULL, 10));
}

static int init(const struct rserve_init *init, char *why, size_t size, void *arg)
{
    (void)why;
    (void)size;
    (void)arg;
    set_limit(init->json, init->json_len, "config.user_config.limit");
    return 0;
}

static int reconfigure(const char *json, size_t len, char *why, size_t size, void *arg)
{
    (void)why;
    (void)size;
    (void)arg;
    set_limit(json, len, "user_config.limit");
    return 0;
}

int main(int argc, char *argv[])
{
    struct rserve_options options = {.init = init, .reconfigure = reconfigure};

    if (argc != 3 || (log_fd = open(argv[1], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644)) < 0)
        return 2;
    snprintf(gate, sizeof(gate), "%s.gate", argv[1]);
    snprintf(slow, sizeof(slow), "%s.slow.%ld", argv[1], (long)getpid());
    options.threads = (unsigned)strtoul(argv[2], NULL, 10);
    return rserve_serve_with(&options, handle, NULL);
}
