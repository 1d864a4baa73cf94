/* When the control thread is told of load, so that a deployment can grow at once. */
#include "tests/unit/net/dataplane_world.h"

#include "tests/unit/check_main.h"

enum { CLIENTS = 10 };

static struct world w;
static struct fake a;
static struct client clients[CLIENTS];

static void begin(bool scales)
{
    world_hears_load = true;
    world_begin(&w, NULL);
    memset(&a, 0, sizeof(a));
    a.fd = a.body_fd = -1;
    for (int i = 0; i < CLIENTS; i++)
        clients[i].fd = -1;
    world_routes_with(
        &w, (struct rs_route_deployment){
                .max_ongoing = CLIENTS, .max_queued = -1, .retry_after_s = -1, .scales = scales});
}

static void end(void)
{
    for (int i = 0; i < CLIENTS; i++)
        client_close(&clients[i]);
    fake_end(&a);
    world_end(&w);
}

static void ignore(const struct rs_dataplane_stat *s, void *arg)
{
    (void)s;
    (void)arg;
}

static void report(void)
{
    rs_dataplane_stats(w.dp, ignore, NULL);
}

static void request(int i)
{
    client_open(&clients[i], &w);
    client_get(&clients[i], "/");
    fake_expect(&a, RS_MSG_REQUEST);
}

/* What was told so far has arrived: a PONG comes after it. */
static void nothing_told(void)
{
    fake_sync(&w, &a, "r1");
}

START_TEST(starving)
{
    begin(false);
    report();
    client_open(&clients[0], &w);
    client_get(&clients[0], "/");
    expect_event(&w, "load", "urgent"); /* there is no replica */
    client_open(&clients[1], &w);
    client_get(&clients[1], "/"); /* told already */
    fake_attach(&w, &a, "front", "r1", true);
    fake_expect(&a, RS_MSG_REQUEST);
    fake_expect(&a, RS_MSG_REQUEST);
    nothing_told();
    end();
}
END_TEST

START_TEST(grows)
{
    begin(_i == 1);
    fake_attach(&w, &a, "front", "r1", true);
    request(0); /* before anybody asked */
    fake_ok(&a, "");
    client_expect(&clients[0], 200, "");
    client_close(&clients[0]);
    report();
    request(0);
    expect_event(&w, "load", "calm"); /* from none to one */
    request(1);
    nothing_told();
    report(); /* 2: tell me of 6 */
    request(2);
    request(3);
    request(4);
    nothing_told();
    request(5);
    if (_i == 1)
        expect_event(&w, "load", "urgent");
    request(6); /* once, until the next report */
    nothing_told();
    end();
}
END_TEST

RS_CHECK_MAIN("load_alarm", tcase_add_test(tc, starving); tcase_add_loop_test(tc, grows, 0, 2);)
