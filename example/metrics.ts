// What an operator counts: open exchanges by route and state, the time to the head, the duration, the bytes of both bodies, and the
// ends. A client that has left is told apart from a response that was cut off. Two recorders share one source: Prometheus
// (`@platformatic/prom-client` or `prom-client`) and OpenTelemetry. An answer of Fastify's own, such as a 403, is no end of a
// conversation: the metrics that your app has for ordinary routes count it.

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { Meter } from '@opentelemetry/api'
import { Counter, Gauge, Histogram, type Registry } from '@platformatic/prom-client'
import type { FastifyInstance } from 'fastify'
import type { ExchangeEvent } from 'fastify-duplex'

export type End = 'complete' | 'client gone' | 'cut off'

/** The client has closed its connection, or has ended its side within its request. */
const CLIENT_GONE = ['FST_ERR_DUPLEX_ABORTED', 'FST_ERR_DUPLEX_TRUNCATED']

interface Recorder {
  /** @param seconds from the request to the head of the response */
  head (route: string, seconds: number): void
  /** @param code of the error; empty if the exchange was complete */
  end (route: string, end: End, code: string, exchange: { seconds: number, bytesUp: number, bytesDown: number }): void
}

/** Records the exchanges of one app. The channels are those of all apps in this process. */
function observe (app: FastifyInstance, recorder: Recorder): void {
  const on = (event: string, record: (message: ExchangeEvent, route: string) => void): void => {
    const channel = `fastify-duplex.exchange.${event}`
    const listener = (message: unknown): void => {
      const { request } = message as ExchangeEvent
      if (request.server.server === app.server) record(message as ExchangeEvent, request.routeOptions.url!)
    }
    subscribe(channel, listener)
    app.addHook('onClose', async () => { unsubscribe(channel, listener) })
  }
  const end = ({ duration, bytesRead, bytesWritten, error }: ExchangeEvent, route: string): void => {
    const code = (error as NodeJS.ErrnoException | undefined)?.code ?? ''
    const kind = error === undefined ? 'complete' : CLIENT_GONE.includes(code) ? 'client gone' : 'cut off'
    recorder.end(route, kind, code, { seconds: duration / 1000, bytesUp: bytesRead, bytesDown: bytesWritten })
  }
  on('head', ({ duration }, route) => recorder.head(route, duration / 1000))
  on('finish', end)
  on('error', end)
}

interface Open { labels: { route: string, state: string }, count: number }

/** @returns a function that counts. What was there once is counted as 0 when it is gone */
function openCounter (app: FastifyInstance): () => Iterable<Open> {
  const all = new Map<string, Open>()
  return () => {
    for (const open of all.values()) open.count = 0
    for (const { route, state } of app.duplex.exchanges()) {
      const key = `${state} ${route}`
      const open = all.get(key) ?? { labels: { route, state }, count: 0 }
      open.count++
      all.set(key, open)
    }
    return all.values()
  }
}

export function prometheus (app: FastifyInstance, register: Registry): void {
  const registers = [register]
  const countOpen = openCounter(app)
  const seconds = { registers, buckets: [0.001, 0.01, 0.1, 1, 10, 60, 600, 3600] }
  const head = new Histogram({ name: 'duplex_head_seconds', help: 'Time to the head of the response', labelNames: ['route'], ...seconds })
  const duration = new Histogram({ name: 'duplex_duration_seconds', help: 'Duration of exchanges', labelNames: ['route', 'end'], ...seconds })
  const bytes = new Counter({ name: 'duplex_bytes_total', help: 'Bytes of the bodies of ended exchanges', labelNames: ['route', 'direction'], registers })
  const ends = new Counter({ name: 'duplex_ends_total', help: 'Ended exchanges', labelNames: ['route', 'end', 'code'], registers })
  const open = new Gauge({
    name: 'duplex_open',
    help: 'Open exchanges',
    labelNames: ['route', 'state'],
    registers,
    collect () {
      for (const { labels, count } of countOpen()) open.set(labels, count)
    }
  })
  observe(app, {
    head: (route, time) => head.observe({ route }, time),
    end (route, end, code, { seconds, bytesUp, bytesDown }) {
      duration.observe({ route, end }, seconds)
      bytes.inc({ route, direction: 'up' }, bytesUp)
      bytes.inc({ route, direction: 'down' }, bytesDown)
      ends.inc({ route, end, code })
    }
  })
}

export function openTelemetry (app: FastifyInstance, meter: Meter): void {
  const countOpen = openCounter(app)
  const head = meter.createHistogram('duplex.head', { description: 'Time to the head of the response', unit: 's' })
  const duration = meter.createHistogram('duplex.duration', { description: 'Duration of exchanges', unit: 's' })
  const bytes = meter.createCounter('duplex.bytes', { description: 'Bytes of the bodies of ended exchanges', unit: 'By' })
  const ends = meter.createCounter('duplex.ends', { description: 'Ended exchanges' })
  const open = meter.createObservableGauge('duplex.open', { description: 'Open exchanges' })
  open.addCallback((result) => {
    for (const { labels, count } of countOpen()) result.observe(count, labels)
  })
  observe(app, {
    head: (route, time) => head.record(time, { route }),
    end (route, end, code, { seconds, bytesUp, bytesDown }) {
      duration.record(seconds, { route, end })
      bytes.add(bytesUp, { route, direction: 'up' })
      bytes.add(bytesDown, { route, direction: 'down' })
      ends.add(1, { route, end, code })
    }
  })
}
