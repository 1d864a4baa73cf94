/* Last part of rserve_replica.h: answers, calls, and the life of a replica. */
#if defined(RSERVE_REPLICA_IMPLEMENTATION) && !defined(RSERVE_REPLICA_SERVE_H)
#define RSERVE_REPLICA_SERVE_H

#ifdef __cplusplus
extern "C" {
#endif

/* --- the replica's own calls --------------------------------------------------------------------- */

static void rserve_i_copy_text(char *to, size_t size, const struct rserve_i_frame *f, unsigned tag)
{
    size_t n = 0;
    const char *text = rserve_i_find(f, tag, &n);

    snprintf(to, size, "%.*s", text ? (int)n : 0, text ? text : "");
}

/* RESPONSE, BODY or ERROR on a stream that this side opened. */
static void rserve_i_on_answer(struct rserve_i *c, const struct rserve_i_frame *f)
{
    struct rserve_i_call *call = c->calls;
    size_t n = 0;
    const char *field;

    while (call && call->stream != f->stream)
        call = call->next;
    if (!call || call->done)
        return;
    if (f->type == RSERVE_I_RESPONSE) {
        field = rserve_i_find(f, RSERVE_I_CONTENT_TYPE, &n);
        call->pickle = field && n == strlen(RSERVE_I_PICKLE) && !memcmp(field, RSERVE_I_PICKLE, n);
    } else if (f->type == RSERVE_I_ERROR) {
        field = rserve_i_find(f, RSERVE_I_ERROR_CODE, &n);
        call->answer->error = (enum rserve_error)(field && n == 1 ? *field : (int)RSERVE_INTERNAL);
        rserve_i_copy_text(call->answer->error_type, sizeof(call->answer->error_type), f,
                           RSERVE_I_ERROR_TYPE);
        rserve_i_copy_text(call->answer->message, sizeof(call->answer->message), f,
                           RSERVE_I_MESSAGE);
        rserve_i_clear(&call->body, 0);
        call->failed = 1;
    }
    if (rserve_i_gather(&call->body, f, c->options.max_body) < 0 && !call->failed) {
        call->answer->error = RSERVE_TOO_LARGE;
        snprintf(call->answer->message, sizeof(call->answer->message), "the answer is too large");
        call->failed = 1;
    }
    call->done = call->failed || (f->flags & RSERVE_I_END);
    if (!call->done)
        rserve_i_credit(c, f->stream, f->body_len);
}

/* --- the replica's life -------------------------------------------------------------------------- */

/* READY or, with `why`, FAILED. */
static void rserve_i_send_state(struct rserve_i *c, const char *phase, const char *why)
{
    struct rserve_i_buf b;
    const char *const *m = c->options.methods;

    memset(&b, 0, sizeof(b));
    if (why) {
        rserve_i_puts(&b, "{\"phase\":");
        rserve_i_quote(&b, phase);
        rserve_i_puts(&b, ",\"error\":");
        rserve_i_quote(&b, why);
        rserve_i_puts(&b, ",\"traceback\":\"\"}");
    } else {
        rserve_i_puts(&b, "{\"methods\":[");
        for (; m && *m; m++) {
            rserve_i_puts(&b, m == c->options.methods ? "" : ",");
            rserve_i_quote(&b, *m);
        }
        rserve_i_puts(&b, "],\"asgi\":false,\"docs_path\":null,\"has_check_health\":");
        rserve_i_puts(&b, c->options.check_health ? "true" : "false");
        rserve_i_puts(&b, ",\"has_reconfigure\":");
        rserve_i_puts(&b, c->options.reconfigure ? "true" : "false");
        rserve_i_puts(&b, c->starts ? ",\"ends\":true,\"starts\":true}" : ",\"ends\":true}");
    }
    rserve_i_send_json(c, why ? RSERVE_I_FAILED : RSERVE_I_READY, 0, &b);
    free(b.data);
}

static void *rserve_i_worker(void *arg)
{
    struct rserve_i *c = (struct rserve_i *)arg;

    rserve_i_lock(c);
    for (;;) {
        struct rserve_i_job *j;

        while (!c->queue && !c->closed && !c->finished)
            pthread_cond_wait(&c->work, &c->mutex);
        j = c->queue;
        if (!j || c->closed)
            break;
        c->queue = j->next;
        if (!c->queue)
            c->queue_end = &c->queue;
        rserve_i_run(c, j);
        rserve_i_flush(c);
        if (c->stopping && !c->queue && !c->partial && !c->running)
            shutdown(c->fd, SHUT_RD); /* wakes the reader, who ends it */
    }
    rserve_i_unlock(c);
    return NULL;
}

/* The object of a JSON message: its metadata, or its body where that is too small. */
static const char *rserve_i_object(const struct rserve_i_frame *f, size_t *len)
{
    int is_long = !f->meta_len && f->body;

    *len = is_long ? (size_t)f->body_len : f->meta_len;
    return is_long ? f->body : f->meta;
}

/* The memory that came with INIT. */
static void rserve_i_share_starts(struct rserve_i *c, const struct rserve_i_frame *f)
{
    struct stat st;
    void *at;

    if (f->body_fd < 0 || (f->flags & RSERVE_I_MEMFD) || fstat(f->body_fd, &st) < 0 ||
        st.st_size < RSERVE_I_STARTS * 16)
        return;
    at = mmap(NULL, RSERVE_I_STARTS * 16, PROT_READ | PROT_WRITE, MAP_SHARED, f->body_fd, 0);
    c->starts = at == MAP_FAILED ? NULL : (uint64_t *)at;
}

static void rserve_i_on_init(struct rserve_i *c, const struct rserve_i_frame *f)
{
    struct rserve_init init;
    char why[400] = "init failed";
    const char *json;
    size_t len;
    int r = 0;

    if (c->ready) {
        rserve_i_break(c, "a second INIT");
        return;
    }
    json = rserve_i_object(f, &len);
    rserve_i_share_starts(c, f);
    rserve_json_text(json, len, "app", c->app, sizeof(c->app));
    rserve_json_text(json, len, "deployment", c->deployment, sizeof(c->deployment));
    rserve_json_text(json, len, "replica_id", c->replica_id, sizeof(c->replica_id));
    init.app = c->app;
    init.deployment = c->deployment;
    init.replica_id = c->replica_id;
    init.json = json;
    init.json_len = len;
    if (c->options.init)
        r = c->options.init(&init, why, sizeof(why), c->arg);
    while (r == 0 && c->workers_len < c->options.threads) {
        r = pthread_create(&c->workers[c->workers_len], NULL, rserve_i_worker, c);
        if (r)
            snprintf(why, sizeof(why), "cannot start a thread: %s", strerror(r));
        else
            c->workers_len++;
    }
    rserve_i_send_state(c, "constructor", r ? why : NULL);
    c->ready = r == 0;
    if (r) {
        rserve_i_flush(c);
        rserve_i_break(c, why);
    }
}

static void rserve_i_on_reconfigure(struct rserve_i *c, const struct rserve_i_frame *f)
{
    char why[400] = "reconfigure failed";
    size_t len;
    const char *json = rserve_i_object(f, &len);
    int r = 0;

    if (c->options.reconfigure) {
        rserve_i_unlock(c);
        r = c->options.reconfigure(json, len, why, sizeof(why), c->arg);
        rserve_i_lock(c);
    }
    rserve_i_send_state(c, "reconfigure", r ? why : NULL);
}

static void rserve_i_on_ping(struct rserve_i *c, uint64_t stream)
{
    char why[400] = "check_health failed";
    struct rserve_i_buf b;
    int r = 0;

    if (c->options.check_health) {
        rserve_i_unlock(c);
        r = c->options.check_health(why, sizeof(why), c->arg);
        rserve_i_lock(c);
    }
    memset(&b, 0, sizeof(b));
    rserve_i_puts(&b, r ? "{\"ok\":false,\"error\":" : "{\"ok\":true");
    if (r)
        rserve_i_quote(&b, why);
    rserve_i_puts(&b, "}");
    rserve_i_send_json(c, RSERVE_I_PONG, stream, &b);
    free(b.data);
}

static void rserve_i_dispatch(struct rserve_i *c, struct rserve_i_frame *f)
{
    switch (f->type) {
    case RSERVE_I_REQUEST:
        rserve_i_on_request(c, f);
        break;
    case RSERVE_I_BODY:
        if (f->stream % 2 == 0)
            rserve_i_on_body(c, f);
        else
            rserve_i_on_answer(c, f);
        break;
    case RSERVE_I_RESPONSE:
    case RSERVE_I_ERROR:
        rserve_i_on_answer(c, f);
        break;
    case RSERVE_I_CANCEL:
        rserve_i_on_cancel(c, f->stream);
        break;
    case RSERVE_I_WINDOW:
        rserve_i_on_window(c, f);
        break;
    case RSERVE_I_INIT:
        rserve_i_on_init(c, f);
        break;
    case RSERVE_I_PING:
        rserve_i_on_ping(c, f->stream);
        break;
    case RSERVE_I_RECONFIGURE:
        rserve_i_on_reconfigure(c, f);
        break;
    case RSERVE_I_STOP:
        c->stopping = 1;
        break;
    case RSERVE_I_FOUND:
        break;
    default:
        rserve_i_break(c, "a frame that a replica should not get");
    }
    if (f->body_fd >= 0)
        close(f->body_fd);
}

/* All whole frames of the input. */
static void rserve_i_frames(struct rserve_i *c)
{
    struct rserve_i_frame f;

    for (;;) {
        if (!c->options.threads && !c->busy)
            rserve_i_run_queue(c);
        if (c->closed || !rserve_i_next(c, &f))
            break;
        rserve_i_dispatch(c, &f);
    }
    if (c->options.threads)
        pthread_cond_broadcast(&c->news);
}

/* Lets news come in while a handler waits. Lock held. */
static void rserve_i_wait(struct rserve_i *c, int flags)
{
    rserve_i_flush(c);
    if (c->options.threads) {
        if (!flags && !c->closed)
            pthread_cond_wait(&c->news, &c->mutex);
        return;
    }
    rserve_i_swap(c);
    if (!c->closed) {
        int r = rserve_i_receive(c, flags);

        if (r > 0)
            rserve_i_frames(c);
        else if (r < 0)
            rserve_i_break(c, NULL);
    }
}

/* --- answers ------------------------------------------------------------------------------------- */

/* 0: the answer is wanted and `state` is where it is. Lock held. */
static int rserve_i_may(const struct rserve_response *res, int state)
{
    return res->state == state && !res->cancelled && !res->c->closed ? 0 : -1;
}

int rserve_add_header(struct rserve_response *res, const char *name, const char *value)
{
    if (res->state != RSERVE_I_FRESH)
        return -1;
    rserve_i_append(&res->headers, name, strlen(name) + 1);
    rserve_i_append(&res->headers, value, strlen(value) + 1);
    return 0;
}

/* The fields of a RESPONSE frame; gives its place in the output. */
static size_t rserve_i_head(struct rserve_response *res, int status, const char *content_type)
{
    struct rserve_i *c = res->c;
    size_t at = rserve_i_begin(c);

    if (res->kind == RSERVE_HTTP) {
        rserve_i_number(c, RSERVE_I_STATUS, (uint64_t)status, 2);
        if (content_type) {
            rserve_i_append(&res->headers, "content-type", sizeof("content-type"));
            rserve_i_append(&res->headers, content_type, strlen(content_type) + 1);
        }
        rserve_i_field(c, RSERVE_I_HEADERS, res->headers.data, res->headers.end);
        return at;
    }
    rserve_i_text(c, RSERVE_I_CONTENT_TYPE,
                  res->pickle ? RSERVE_I_PICKLE
                              : (content_type ? content_type : "application/octet-stream"));
    if (res->items)
        rserve_i_number(c, RSERVE_I_ITEMS, 1, 1);
    return at;
}

/* What came as a file and is sent back as it is travels in the same file. */
static int rserve_i_whole(struct rserve_response *res, const void *body, size_t len)
{
    struct rserve_i_job *j =
        (struct rserve_i_job *)(void *)((char *)res - offsetof(struct rserve_i_job, res));

    if (len <= RSERVE_I_MEMFD_MIN || !j->map || body != j->map || len != j->map_len || res->pickle)
        return -1;
    return fcntl(j->req.body_fd, F_DUPFD_CLOEXEC, 3);
}

int rserve_respond(struct rserve_response *res, int status, const char *content_type,
                   const void *body, size_t len)
{
    struct rserve_i *c = res->c;
    size_t at;
    int r;

    if (res->items) { /* the caller iterates: one item */
        if (rserve_stream_begin(res, status, content_type) < 0 ||
            rserve_stream_chunk(res, body, len) < 0)
            return -1;
        return rserve_stream_end(res);
    }
    rserve_i_lock(c);
    r = rserve_i_may(res, RSERVE_I_FRESH);
    if (r == 0) {
        at = rserve_i_head(res, status, content_type);
        c->whole = rserve_i_whole(res, body, len);
        r = rserve_i_end(c, at, RSERVE_I_RESPONSE, RSERVE_I_END, res->stream, body, len,
                         res->pickle ? "." : NULL);
        if (r < 0)
            rserve_i_send_error(c, res->stream, RSERVE_TOO_LARGE, "OSError",
                                "no room for the answer");
    }
    if (res->state == RSERVE_I_FRESH)
        res->state = RSERVE_I_DONE;
    rserve_i_unlock(c);
    return r;
}

int rserve_fail(struct rserve_response *res, enum rserve_error code, const char *type,
                const char *message)
{
    struct rserve_i *c = res->c;
    int r;

    rserve_i_lock(c);
    r = res->state == RSERVE_I_DONE ? -1 : rserve_i_may(res, res->state);
    if (r == 0)
        rserve_i_send_error(c, res->stream, (int)code, type, message);
    res->state = RSERVE_I_DONE;
    rserve_i_unlock(c);
    return r;
}

int rserve_stream_begin(struct rserve_response *res, int status, const char *content_type)
{
    struct rserve_i *c = res->c;
    int r;

    rserve_i_lock(c);
    r = rserve_i_may(res, RSERVE_I_FRESH);
    if (r == 0) {
        r = rserve_i_end(c, rserve_i_head(res, status, content_type), RSERVE_I_RESPONSE, 0,
                         res->stream, NULL, 0, NULL);
        res->state = RSERVE_I_STREAMING;
    }
    rserve_i_unlock(c);
    return r;
}

int rserve_stream_chunk(struct rserve_response *res, const void *data, size_t len)
{
    struct rserve_i *c = res->c;
    int r;

    rserve_i_lock(c);
    while (res->credit <= 0 && rserve_i_may(res, RSERVE_I_STREAMING) == 0)
        rserve_i_wait(c, 0);
    r = rserve_i_may(res, RSERVE_I_STREAMING);
    if (r == 0)
        r = rserve_i_end(c, rserve_i_begin(c), RSERVE_I_BODY, 0, res->stream, data, len,
                         res->pickle ? "." : NULL);
    if (r == 0) {
        res->credit -= (int64_t)len;
        rserve_i_flush(c);
    }
    rserve_i_unlock(c);
    return r;
}

int rserve_stream_end(struct rserve_response *res)
{
    struct rserve_i *c = res->c;
    int r;

    rserve_i_lock(c);
    r = rserve_i_may(res, RSERVE_I_STREAMING);
    if (r == 0)
        r = rserve_i_end(c, rserve_i_begin(c), RSERVE_I_BODY, RSERVE_I_END, res->stream, NULL, 0,
                         NULL);
    if (res->state == RSERVE_I_STREAMING)
        res->state = RSERVE_I_DONE;
    rserve_i_unlock(c);
    return r;
}

int rserve_cancelled(struct rserve_response *res)
{
    struct rserve_i *c = res->c;
    int r;

    rserve_i_lock(c);
    if (!res->cancelled)
        rserve_i_wait(c, MSG_DONTWAIT);
    r = res->cancelled || c->closed;
    rserve_i_unlock(c);
    return r;
}

static int rserve_i_send_call(struct rserve_i *c, const struct rserve_call_args *call,
                              uint64_t stream, uint64_t parent)
{
    size_t at = rserve_i_begin(c);

    rserve_i_number(c, RSERVE_I_KIND, RSERVE_CALL, 1);
    rserve_i_text(c, RSERVE_I_APP, call->app ? call->app : c->app);
    rserve_i_text(c, RSERVE_I_DEPLOYMENT, call->deployment);
    rserve_i_text(c, RSERVE_I_METHOD, call->method ? call->method : "__call__");
    rserve_i_text(c, RSERVE_I_CONTENT_TYPE,
                  call->content_type ? call->content_type : RSERVE_I_PICKLE);
    rserve_i_number(c, RSERVE_I_PARENT, parent, 8);
    if (call->timeout_ms)
        rserve_i_number(c, RSERVE_I_TIMEOUT_MS, call->timeout_ms, 4);
    return rserve_i_end(c, at, RSERVE_I_REQUEST, RSERVE_I_END, stream, call->body, call->body_len,
                        call->content_type ? NULL : RSERVE_I_ARGS);
}

int rserve_call(struct rserve_response *res, const struct rserve_call_args *call,
                struct rserve_answer *ret)
{
    struct rserve_i *c = res->c;
    struct rserve_i_call wait, **at;
    const char *value = NULL;

    memset(ret, 0, sizeof(*ret));
    memset(&wait, 0, sizeof(wait));
    wait.answer = ret;
    rserve_i_lock(c);
    wait.stream = c->next_stream;
    c->next_stream += 2;
    wait.next = c->calls;
    c->calls = &wait;
    if (rserve_i_send_call(c, call, wait.stream, res->stream) < 0) {
        wait.failed = wait.done = 1;
        ret->error = RSERVE_TOO_LARGE;
        snprintf(ret->message, sizeof(ret->message), "no room for the call");
    }
    while (!wait.done && !res->cancelled && !c->closed)
        rserve_i_wait(c, 0);
    if (!wait.done) {
        if (!c->closed)
            rserve_i_end(c, rserve_i_begin(c), RSERVE_I_CANCEL, 0, wait.stream, NULL, 0, NULL);
        ret->error = RSERVE_CANCELLED;
        snprintf(ret->message, sizeof(ret->message), "the request was cancelled");
        wait.failed = 1;
    }
    for (at = &c->calls; *at != &wait;)
        at = &(*at)->next;
    *at = wait.next;
    rserve_i_unlock(c);
    ret->memory = wait.body.data;
    ret->body = wait.body.data;
    ret->body_len = wait.body.end;
    if (!wait.failed && wait.pickle &&
        rserve_i_unpickle(ret->body, ret->body_len, ".", &value, &ret->body_len) == 0)
        ret->body += value - ret->body;
    return wait.failed ? -1 : 0;
}

void rserve_answer_free(struct rserve_answer *answer)
{
    free(answer->memory);
    answer->memory = answer->body = NULL;
}

/* --- the whole ----------------------------------------------------------------------------------- */

static void rserve_i_hello(struct rserve_i *c)
{
    char text[100];
    struct rserve_i_buf b;

    memset(&b, 0, sizeof(b));
    snprintf(text, sizeof(text), "{\"protocol\":1,\"kind\":\"exec\",\"pid\":%ld,\"starts\":true}",
             (long)getpid());
    rserve_i_puts(&b, text);
    rserve_i_send_json(c, RSERVE_I_HELLO, 0, &b);
    free(b.data);
}

static void rserve_i_loop(struct rserve_i *c)
{
    int r;

    rserve_i_lock(c);
    while (!c->closed) {
        rserve_i_flush(c);
        if (c->closed || (c->stopping && !c->queue && !c->partial && !c->running))
            break;
        rserve_i_unlock(c);
        r = rserve_i_receive(c, 0);
        rserve_i_lock(c);
        if (r > 0)
            rserve_i_frames(c);
        else
            rserve_i_break(c, NULL);
    }
    c->finished = 1;
    pthread_cond_broadcast(&c->work);
    pthread_cond_broadcast(&c->news);
    rserve_i_unlock(c);
}

static void rserve_i_free_jobs(struct rserve_i *c, struct rserve_i_job *j)
{
    while (j) {
        struct rserve_i_job *next = j->next;

        rserve_i_recycle(c, j);
        j = next;
    }
}

static void rserve_i_fini(struct rserve_i *c)
{
    struct rserve_i_job *j;
    size_t i;

    rserve_i_free_jobs(c, c->queue);
    rserve_i_free_jobs(c, c->partial);
    while ((j = c->idle)) {
        c->idle = j->next;
        free(j->meta.data);
        free(j->body.data);
        free(j->res.headers.data);
        free(j);
    }
    free(c->place.res.headers.data);
    if (c->starts)
        munmap(c->starts, RSERVE_I_STARTS * 16);
    for (i = 0; i < c->in_fds_len; i++)
        close(c->in_fds[i]);
    if (c->spare)
        free(c->spare->data);
    free(c->spare);
    free(c->in->data);
    free(c->in);
    free(c->out.data);
    free(c->marks);
    free(c->workers);
    close(c->fd);
    pthread_mutex_destroy(&c->mutex);
    pthread_cond_destroy(&c->work);
    pthread_cond_destroy(&c->news);
}

/* `leave`: the process is ours, so that a hang-up ends it at once, whatever its threads do. */
static int rserve_i_serve(int fd, const struct rserve_options *options, rserve_handler *handler,
                          void *arg, int leave)
{
    struct rserve_i c;
    unsigned i;
    int r;

    memset(&c, 0, sizeof(c));
    c.fd = fd;
    if (options)
        c.options = *options;
    if (!c.options.max_body)
        c.options.max_body = (size_t)1 << 30;
    c.handler = handler;
    c.arg = arg;
    c.next_stream = 1;
    c.queue_end = &c.queue;
    c.place.req.body_fd = -1;
    c.whole = -1;
    c.in = (struct rserve_i_buf *)rserve_i_alloc(NULL, sizeof(*c.in));
    memset(c.in, 0, sizeof(*c.in));
    c.workers =
        (pthread_t *)rserve_i_alloc(NULL, (c.options.threads + (size_t)1) * sizeof(*c.workers));
    pthread_mutex_init(&c.mutex, NULL);
    pthread_cond_init(&c.work, NULL);
    pthread_cond_init(&c.news, NULL);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    rserve_i_hello(&c);
    rserve_i_loop(&c);
    r = c.broken || !c.stopping;
    if (leave && r && c.workers_len)
        _exit(1);
    for (i = 0; i < c.workers_len; i++)
        pthread_join(c.workers[i], NULL);
    if (c.options.stop && c.ready)
        c.options.stop(arg);
    rserve_i_fini(&c);
    return r;
}

int rserve_serve_on(int fd, const struct rserve_options *options, rserve_handler *handler,
                    void *arg)
{
    return rserve_i_serve(fd, options, handler, arg, 0);
}

int rserve_serve_with(const struct rserve_options *options, rserve_handler *handler, void *arg)
{
    const char *text = getenv("RSERVE_FD");
    char *end = NULL;
    long fd = text && *text ? strtol(text, &end, 10) : -1;
    struct stat st;

    if (fd < 0 || !end || *end || fd > 1 << 20 || fstat((int)fd, &st) < 0 ||
        !S_ISSOCK(st.st_mode)) {
        fprintf(stderr, "rserve_replica: RSERVE_FD is not a socket: this program is a replica and "
                        "is started by rserve\n");
        return 2;
    }
    return rserve_i_serve((int)fd, options, handler, arg, 1);
}

int rserve_serve(rserve_handler *handler, void *arg)
{
    return rserve_serve_with(NULL, handler, arg);
}

#ifdef __cplusplus
}
#endif

#endif
