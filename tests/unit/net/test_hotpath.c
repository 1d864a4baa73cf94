/* What an ordinary request costs: no memory of ours is allocated once there was one like it.
 *
 * The linker sends the calls of core/base/alloc.h through the functions below (tests/meson.build). */
#include "tests/unit/net/dataplane_world.h"

#include "tests/unit/check_main.h"

#include <stdatomic.h>

static atomic_uint allocations;
static _Thread_local bool is_test; /* not the lane */

static void count(void)
{
    if (!is_test)
        atomic_fetch_add(&allocations, 1);
}

void *__real_rs_alloc(size_t size);
void *__real_rs_realloc(void *old, size_t size);
void *__real_rs_grow(void *array, size_t *cap, size_t want, size_t elem_size);
void *__real_rs_memdup(const void *data, size_t size);
char *__real_rs_strdup(const char *text);
char *__real_rs_strndup(const char *text, size_t n);

void *__wrap_rs_alloc(size_t size)
{
    count();
    return __real_rs_alloc(size);
}

void *__wrap_rs_realloc(void *old, size_t size)
{
    count();
    return __real_rs_realloc(old, size);
}

void *__wrap_rs_grow(void *array, size_t *cap, size_t want, size_t elem_size)
{
    if (want > *cap)
        count();
    return __real_rs_grow(array, cap, want, elem_size);
}

void *__wrap_rs_memdup(const void *data, size_t size)
{
    count();
    return __real_rs_memdup(data, size);
}

char *__wrap_rs_strdup(const char *text)
{
    count();
    return __real_rs_strdup(text);
}

char *__wrap_rs_strndup(const char *text, size_t n)
{
    count();
    return __real_rs_strndup(text, n);
}

static const struct {
    const char *request, *answer;
} kinds[] = {
    {"GET /a/path?x=1 HTTP/1.1\r\nHost: x\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n", "ok"},
    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
     "hello again"},
    {"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\nCookie: a=b; c=d\r\n\r\n", ""},
};

START_TEST(requests_after_the_first_need_no_memory)
{
    enum { WARM = 40, COUNTED = 200 };
    struct world w;
    struct fake a;
    struct client c;
    unsigned before;

    is_test = true;
    world_begin(&w, NULL);
    world_routes(&w);
    fake_attach(&w, &a, "front", "r1", true);
    fake_sync(&w, &a, "r1");
    client_open(&c, &w);
    before = atomic_load(&allocations);
    ck_assert_uint_gt(before, 0); /* they are counted at all */
    for (int i = 0; i < WARM + COUNTED; i++) {
        client_send(&c, kinds[_i].request);
        fake_expect(&a, RS_MSG_REQUEST);
        fake_ok(&a, kinds[_i].answer);
        client_expect(&c, 200, kinds[_i].answer);
        if (i == WARM)
            before = atomic_load(&allocations);
    }
    ck_assert_uint_eq(atomic_load(&allocations), before);
    client_close(&c);
    fake_end(&a);
    world_end(&w);
}
END_TEST

RS_CHECK_MAIN("hotpath",
              tcase_add_loop_test(tc, requests_after_the_first_need_no_memory, 0, RS_COUNT(kinds));)
