/* Clients of an OpenAI API over keep-alive HTTP/1.1, one epoll loop; every answer is checked from its first byte to its last.
 *
 *   load PORT CLIENTS WARM_UP SECONDS TOKENS RATE PAUSE BODY_BYTES TRACED
 *
 * Each client asks, reads the whole answer, and asks again on the same connection. TOKENS 0: short answers that are not
 * streamed; else streams of so many tokens, which the mock engine paces at RATE a second (0: as fast as they are read).
 * BODY_BYTES more stand in the prompt, and up to 1,000 besides: no two requests in a row are of one length. TRACED 1: each
 * has a traceparent of its own. PAUSE: seconds at most, at random and the same in each run, between an answer and the next question. Prints `begin`
 * after WARM_UP seconds and, SECONDS later, one line of JSON: what ended, and what arrived, in between. TTFT is from
 * the write of the request to the first event that has content, in microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum framing { HEAD, LENGTH, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, LAST };
enum { HEAD_LIMIT = 16384, EVENT_LIMIT = 65536, SAMPLES = 1 << 23, VARIANTS = 16 };

struct client {
    int fd, number;
    enum framing framing;
    size_t left;            /* of the body, or of the chunk */
    char head[HEAD_LIMIT], event[EVENT_LIMIT];
    size_t head_size, event_size;
    long tokens, events;
    bool done, chunk_digits, waits;
    int64_t asked, first, next;
};

static struct client *clients;
static int count, queue, port, ramp;
static long want_tokens, requests, tokens, answers_wrong, reconnected;
static int64_t pause_ns;
static bool measuring;
static struct { char *bytes, *trace; size_t size; } requests_made[VARIANTS];
static uint64_t asked_so_far;
static uint32_t *ttft, *whole;
static long ttfts, wholes;
static uint64_t random_state = 88172645463325252ULL;
static char wrong[200];

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static double random_ratio(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (random_state >> 11) * 0x1.0p-53;
}

static void call(struct client *c) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) { perror("connect"); exit(1); }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(queue, EPOLL_CTL_ADD, c->fd, &e);
}

static void ask(struct client *c) {
    c->framing = HEAD;
    c->head_size = c->event_size = 0;
    c->tokens = c->events = 0;
    c->done = c->waits = false;
    c->first = 0;
    char *request = requests_made[asked_so_far % VARIANTS].bytes, *trace = requests_made[asked_so_far % VARIANTS].trace;
    size_t sent = 0, request_size = requests_made[asked_so_far++ % VARIANTS].size;
    for (int i = 0; trace && i < 16; i++) trace[i] = "0123456789abcdef"[asked_so_far * 0x9e3779b97f4a7c15ULL >> 4 * i & 15];
    c->asked = now_ns();
    while (sent < request_size) {
        ssize_t n = send(c->fd, request + sent, request_size - sent, MSG_NOSIGNAL);
        if (n < 0) return; /* what comes, or does not, tells */
        sent += n;
    }
}

static void again(struct client *c, bool on_new) {
    if (on_new) {
        close(c->fd);
        call(c);
        if (measuring) reconnected++;
    }
    if (pause_ns) {
        c->waits = true;
        c->next = now_ns() + (int64_t)(pause_ns * random_ratio());
    } else ask(c);
}

static void bad(struct client *c, const char *why) {
    answers_wrong++;
    if (!*wrong) snprintf(wrong, sizeof wrong, "%s after %ld tokens, %ld events", why, c->tokens, c->events);
    if (answers_wrong > 1000) { printf("{\"wrong\": %ld, \"why\": \"%s\"}\n", answers_wrong, wrong); exit(1); }
    again(c, true);
}

/* An answer has ended, as HTTP says: was it what was asked for? */
static bool over(struct client *c) {
    int64_t now = now_ns();
    if (want_tokens ? (!c->done || c->tokens != want_tokens || c->event_size || c->events > want_tokens + 2) : !c->done) {
        bad(c, "an answer that is not whole");
        return false;
    }
    if (measuring && c->asked) {
        requests++;
        if (wholes < SAMPLES) whole[wholes++] = (now - c->asked) / 100;
        if (c->first && ttfts < SAMPLES) ttft[ttfts++] = (c->first - c->asked) / 100;
    }
    again(c, strcasestr(c->head, "\r\nconnection: close") != NULL);
    return true;
}

static void event(struct client *c, const char *text, size_t size) {
    c->events++;
    if (size >= 12 && !memcmp(text, "data: [DONE]", 12)) { c->done = true; return; }
    const char *at = memmem(text, size, "\"content\":", 10);
    if (!at) return;
    at += 10;
    if (*at == ' ') at++;
    if (at[0] != '"' || at[1] == '"') return;
    if (!c->tokens++) c->first = now_ns();
    if (measuring) tokens++;
}

static void body(struct client *c, const char *bytes, size_t size) {
    if (!want_tokens) { /* JSON: what must be at its end */
        if (c->event_size + size < EVENT_LIMIT) {
            memcpy(c->event + c->event_size, bytes, size);
            c->event_size += size;
        }
        c->done = c->event[0] == '{' && c->event[c->event_size - 1] == '}' && memmem(c->event, c->event_size, "completion_tokens", 17);
        return;
    }
    while (size) {
        if (!c->event_size) { /* whole events where they lie */
            const char *end;
            while (size && (end = memmem(bytes, size, "\n\n", 2))) {
                event(c, bytes, end - bytes);
                size -= end + 2 - bytes;
                bytes = end + 2;
            }
            if (!size) return;
        }
        size_t part = size < EVENT_LIMIT - c->event_size ? size : EVENT_LIMIT - c->event_size;
        char *old = c->event + c->event_size;
        memcpy(old, bytes, part);
        char *from = old > c->event ? old - 1 : old, *end = memmem(from, old + part - from, "\n\n", 2);
        if (!end) { c->event_size += part; return; }
        event(c, c->event, end - c->event);
        size -= end + 2 - old;
        bytes += end + 2 - old;
        c->event_size = 0;
    }
}

/* False when the connection is another one now, or an answer was over and a new one was asked for. */
static bool take(struct client *c, const char *bytes, size_t size) {
    while (size) {
        size_t part;
        switch (c->framing) {
        case HEAD:
            part = size < HEAD_LIMIT - 1 - c->head_size ? size : HEAD_LIMIT - 1 - c->head_size;
            memcpy(c->head + c->head_size, bytes, part);
            c->head[c->head_size + part] = 0;
            char *end = strstr(c->head, "\r\n\r\n");
            if (!end) { c->head_size += part; return true; }
            part = end + 4 - c->head - c->head_size;
            bytes += part;
            size -= part;
            end[2] = 0;
            if (strncmp(c->head, "HTTP/1.1 200", 12)) { bad(c, c->head[9] ? strndup(c->head + 9, 3) : "no status"); return false; }
            const char *length = strcasestr(c->head, "\r\ncontent-length:");
            c->left = length ? strtoul(length + 17, NULL, 10) : 0;
            c->framing = length ? LENGTH : CHUNK_SIZE;
            c->chunk_digits = false;
            if (length && !c->left) return over(c), false;
            break;
        case LENGTH:
        case CHUNK_DATA:
            part = size < c->left ? size : c->left;
            body(c, bytes, part);
            bytes += part;
            size -= part;
            c->left -= part;
            if (c->left) break;
            if (c->framing == LENGTH) { over(c); return false; }
            c->framing = CHUNK_END;
            c->left = 2;
            break;
        case CHUNK_SIZE: {
            char digit = *bytes++;
            size--;
            if (digit == '\n') {
                if (!c->chunk_digits) { bad(c, "a chunk without a size"); return false; }
                c->framing = c->left ? CHUNK_DATA : LAST;
                if (!c->left) c->left = 2;
            } else if (digit != '\r') {
                int d = digit >= '0' && digit <= '9' ? digit - '0' : (digit | 32) >= 'a' && (digit | 32) <= 'f' ? (digit | 32) - 'a' + 10 : -1;
                if (d < 0) { bad(c, "a bad chunk"); return false; }
                c->left = c->left * 16 + d;
                c->chunk_digits = true;
            }
            break;
        }
        case CHUNK_END:
        case LAST:
            if (*bytes != (c->left == 2 ? '\r' : '\n')) { bad(c, "a chunk without an end"); return false; }
            bytes++;
            size--;
            if (--c->left) break;
            if (c->framing == LAST) { over(c); return false; }
            c->framing = CHUNK_SIZE;
            c->left = 0;
            c->chunk_digits = false;
            break;
        }
    }
    return true;
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void quantiles(const char *name, uint32_t *found, long size) {
    qsort(found, size, sizeof *found, compare);
    if (size) printf(", \"%s\": [%.1f, %.1f, %.1f]", name, found[size / 2] / 10.0, found[(long)(size * 0.99)] / 10.0, found[size - 1] / 10.0);
    else printf(", \"%s\": null", name);
}

static void make_request(int number, long rate, long padding, bool traced) {
    padding += number * 977 % 1000;
    char *text = malloc(padding + 1024), head[2048];
    int size = sprintf(text,
        "{\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},{\"role\":\"user\",\"content\":\"Tell me a story about an engine. ");
    memset(text + size, 'x', padding);
    size += padding;
    size += sprintf(text + size, "\"}],\"model\":\"tiny-qwen\",\"max_tokens\":%ld,\"seed\":%ld,\"temperature\":0.7", want_tokens ? want_tokens : 4, rate);
    size += sprintf(text + size, want_tokens ? ",\"stream\":true}" : "}");
    /* what openai-python sends */
    int head_size = sprintf(head,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n"
        "Accept: application/json\r\nContent-Type: application/json\r\nUser-Agent: OpenAI/Python 2.8.1\r\nX-Stainless-Lang: python\r\n"
        "X-Stainless-Package-Version: 2.8.1\r\nX-Stainless-OS: Linux\r\nX-Stainless-Arch: x64\r\nX-Stainless-Runtime: CPython\r\n"
        "X-Stainless-Runtime-Version: 3.11.7\r\nAuthorization: Bearer sk-bench-0123456789abcdef0123456789abcdef\r\nX-Stainless-Async: false\r\n"
        "x-stainless-retry-count: 0\r\nx-stainless-read-timeout: 600\r\n%sContent-Length: %d\r\n\r\n", port,
        traced ? "traceparent: 00-4bf92f3577b34da60000000000000000-00f067aa0ba902b7-01\r\n" : "", size);
    char *bytes = malloc(head_size + size);
    memcpy(bytes, head, head_size);
    memcpy(bytes + head_size, text, size);
    requests_made[number].bytes = bytes;
    requests_made[number].size = head_size + size;
    requests_made[number].trace = traced ? (char *)memmem(bytes, head_size, "traceparent: ", 13) + 32 : NULL;
    free(text);
}

int main(int arguments, char **argument) {
    if (arguments != 10) return 2;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    port = atoi(argument[1]);
    count = atoi(argument[2]);
    int64_t warm_up = atof(argument[3]) * 1e9, seconds = atof(argument[4]) * 1e9;
    want_tokens = atol(argument[5]);
    long rate = atol(argument[6]);
    pause_ns = atof(argument[7]) * 1e9;
    for (int i = 0; i < VARIANTS; i++) make_request(i, rate, atol(argument[8]), atoi(argument[9]));
    clients = calloc(count, sizeof *clients);
    ttft = malloc(SAMPLES * sizeof *ttft);
    whole = malloc(SAMPLES * sizeof *whole);
    queue = epoll_create1(EPOLL_CLOEXEC);
    int64_t began = now_ns(), from = began + warm_up, spread = rate ? want_tokens * 1000000000LL / rate : 0;
    if (spread > warm_up / 2) spread = warm_up / 2;
    for (int i = 0; i < count; i++) { /* they do not all begin at once */
        clients[i].number = i;
        clients[i].waits = true;
        clients[i].next = began + (int64_t)(spread * ((i + random_ratio()) / count));
        call(&clients[i]);
    }
    ramp = count;
    static char bytes[1 << 18];
    struct epoll_event found[256];
    for (;;) {
        int64_t now = now_ns();
        if (!measuring && now >= from) {
            measuring = true;
            for (int i = 0; i < count; i++)
                if (!rate) clients[i].asked = 0; /* the ones under way began before */
            puts("begin");
            fflush(stdout);
            from = now_ns();
        }
        if (measuring && now >= from + seconds) break;
        int64_t next = measuring ? from + seconds : from;
        for (int i = 0; (ramp || pause_ns) && i < count; i++)
            if (clients[i].waits) {
                if (clients[i].next <= now) { ask(&clients[i]); if (ramp) ramp--; }
                else if (clients[i].next < next) next = clients[i].next;
            }
        int64_t wait = next - now_ns();
        if (wait < 0) wait = 0;
        struct timespec timeout = {.tv_sec = wait / 1000000000LL, .tv_nsec = wait % 1000000000LL};
        int n = epoll_pwait2(queue, found, 256, &timeout, NULL);
        for (int i = 0; i < n; i++) {
            struct client *c = found[i].data.ptr;
            ssize_t size = recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT);
            if (size < 0 && errno == EAGAIN) continue;
            if (size <= 0) {
                if (c->waits) again(c, true);
                else bad(c, "the connection ended");
                continue;
            }
            take(c, bytes, size);
        }
    }
    double took = (now_ns() - from) / 1e9;
    printf("{\"seconds\": %.6f, \"requests\": %ld, \"tokens\": %ld, \"wrong\": %ld, \"why\": \"%s\", \"reconnected\": %ld", took, requests, tokens, answers_wrong, wrong, reconnected);
    quantiles("ttft_us", ttft, ttfts);
    quantiles("whole_us", whole, wholes);
    printf("}\n");
    return 0;
}
