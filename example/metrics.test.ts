import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { test } from 'node:test'
import { AggregationTemporality, InMemoryMetricExporter, MeterProvider, PeriodicExportingMetricReader } from '@opentelemetry/sdk-metrics'
import { Registry } from '@platformatic/prom-client'
import Fastify, { type FastifyInstance } from 'fastify'
import duplex, { type InjectedDuplex } from 'fastify-duplex'
import { openTelemetry, prometheus } from './metrics.ts'

const register = new Registry()
const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE)
const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 2 ** 30 })
const meters = new MeterProvider({ readers: [reader] })

/** What OpenTelemetry has, as lines of Prometheus. */
async function exported (): Promise<string[]> {
  exporter.reset()
  await reader.forceFlush()
  return exporter.getMetrics().flatMap(({ scopeMetrics }) => scopeMetrics).flatMap(({ metrics }) => metrics).flatMap(({ descriptor: { name }, dataPoints }) => {
    return dataPoints.map(({ attributes, value }) => {
      const labels = Object.entries(attributes).map(([label, value]) => `${label}="${value}"`).join()
      return `${name.replaceAll('.', '_')}{${labels}} ${typeof value === 'object' ? (value as { count: number }).count : value}`
    })
  })
}

/** One exchange of three bytes up and three down, which is then open. */
async function begin (app: FastifyInstance): Promise<InjectedDuplex> {
  const client = await app.injectDuplex({ method: 'POST', url: '/echo' })
  client.on('error', () => {}).write('abc')
  await once(client, 'data')
  return client
}

test('metrics of exchanges, for Prometheus and OpenTelemetry', async (t) => {
  const app = Fastify()
  const other = Fastify()
  t.after(() => Promise.all([app.close(), other.close(), meters.shutdown()]))
  for (const one of [app, other]) {
    await one.register(duplex)
    one.post('/forever', { duplex: true }, async (request, reply) => { await reply.duplex.toArray().then(() => reply.duplex.write('abc')) })
    one.post('/echo', { duplex: { bodyLimit: 10 } }, async function * (request, reply) { yield * reply.duplex })
  }
  prometheus(app, register)
  openTelemetry(app, meters.getMeter('test'))
  const ended = (): Promise<void> => new Promise((resolve) => {
    const look = (): unknown => app.duplex.exchanges().length === 0 ? resolve() : setImmediate(look)
    look()
  })

  const complete = await begin(app)
  assert.match(await register.metrics(), /^duplex_open{route="\/echo",state="both"} 1$/m)
  assert.ok((await exported()).includes('duplex_open{route="/echo",state="both"} 1'))
  complete.end().resume()
  await ended()
  const left = await begin(app)
  left.destroy()
  await ended()
  const leftLate = await app.injectDuplex({ method: 'POST', url: '/forever', payload: '' })
  leftLate.on('error', () => {})
  await once(leftLate, 'data')
  ;(leftLate.socket as Socket).resetAndDestroy()
  await ended()
  const tooLong = await begin(app)
  tooLong.write('more than ten bytes')
  await ended()
  const elsewhere = await begin(other)
  elsewhere.end().resume()
  await once(elsewhere, 'end')

  const lines = [
    'duplex_ends{route="/echo",end="complete",code=""} 1',
    'duplex_ends{route="/echo",end="client gone",code="FST_ERR_DUPLEX_TRUNCATED"} 1',
    'duplex_ends{route="/forever",end="client gone",code="FST_ERR_DUPLEX_ABORTED"} 1',
    'duplex_ends{route="/echo",end="cut off",code="FST_ERR_DUPLEX_BODY_LIMIT"} 1',
    'duplex_open{route="/echo",state="both"} 0',
    'duplex_bytes{route="/echo",direction="down"} 9',
    'duplex_head{route="/echo"} 3',
    'duplex_duration{route="/echo",end="cut off"} 1'
  ]
  const scraped = await register.metrics()
  const names = { duplex_open: 'duplex_open', duplex_ends: 'duplex_ends_total', duplex_bytes: 'duplex_bytes_total', duplex_head: 'duplex_head_seconds_count', duplex_duration: 'duplex_duration_seconds_count' }
  for (const line of lines) {
    const found = await exported()
    assert.ok(found.includes(line), `${line} in\n${found.join('\n')}`)
    const inPrometheus = line.replace(/^\w+/, (name) => names[name as keyof typeof names])
    assert.ok(scraped.split('\n').includes(inPrometheus), `${inPrometheus} in\n${scraped}`)
  }
})
