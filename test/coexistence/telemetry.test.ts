// Beside OpenTelemetry: what a span has of an exchange, and when it ends.

import { pipeline } from 'node:stream/promises'
import { FastifyOtelInstrumentation } from '@fastify/otel'
import * as api from '@opentelemetry/api'
import { HttpInstrumentation } from '@opentelemetry/instrumentation-http'
import { InMemorySpanExporter, NodeTracerProvider, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-node'
import t, { type Test } from 'tap'
import { type Served, chunk, serve } from '../wire.ts'
import { type Plugin, open, plain, upper } from './support.ts'

/** Spans as they end. */
function tracing (): { provider: NodeTracerProvider, spans: (name: string) => unknown[] } {
  const exporter = new InMemorySpanExporter()
  const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] })
  const spans = (name: string): unknown[] => exporter.getFinishedSpans()
    .filter((span) => span.name === name)
    .map(({ attributes, status }) => [attributes['http.route'] ?? attributes['url.path'], attributes['http.response.status_code'], status.code])
  return { provider, spans }
}

const fails: Plugin = (app) => {
  app.post('/broken', { duplex: true }, async (request, reply) => {
    await pipeline(reply.duplex, reply.duplex, { end: false })
    throw new Error('broken')
  })
}

/** One exchange that ends well, an ordinary request, and one exchange that is cut off. */
async function trace (t: Test, { connect, logged }: Served, seen: () => unknown[], expected: unknown[]): Promise<void> {
  const wire = await connect()
  wire.send(open('/upper') + chunk('one'))
  await wire.head()
  t.equal(await wire.content(3), 'ONE')
  t.strictSame(seen(), [], 'open while the exchange is')
  const completed = logged('request completed')
  wire.send('0\r\n\r\n')
  t.equal(await wire.body(), '')
  await completed
  await plain(t, wire)
  const errored = logged('request errored')
  wire.send(open('/broken') + chunk('one') + '0\r\n\r\n')
  await wire.head()
  await t.rejects(wire.body(), { code: 'FST_ERR_DUPLEX_TRUNCATED' })
  await errored
  await wire.ended
  t.strictSame(seen(), expected)
}

for (const order of ['before', 'after']) {
  t.test(`@fastify/otel, registered ${order} fastify-duplex`, async (t) => {
    const { provider, spans } = tracing()
    const instrumentation = new FastifyOtelInstrumentation()
    instrumentation.setTracerProvider(provider)
    const traced: Plugin = (app) => app.register(instrumentation.plugin())
    const served = await serve(t, 'tcp', async (app) => {
      if (order === 'after') await traced(app)
      app.post('/upper', { duplex: true }, upper)
      app.get('/plain', async () => 'plain')
      fails(app)
    }, {}, {}, order === 'before' ? traced : () => {})
    await trace(t, served, () => spans('request'), [['/upper', 200, api.SpanStatusCode.UNSET], ['/plain', 200, api.SpanStatusCode.UNSET], ['/broken', 200, api.SpanStatusCode.ERROR]])
    await provider.shutdown()
  })
}

t.test('@opentelemetry/instrumentation-http', async (t) => {
  const { provider, spans } = tracing()
  provider.register()
  const instrumentation = new HttpInstrumentation()
  instrumentation.setTracerProvider(provider)
  require('node:http') // is instrumented as it is loaded
  t.teardown(() => instrumentation.disable())
  const served = await serve(t, 'tcp', (app) => {
    app.post('/upper', { duplex: true }, async function * (request, reply) {
      for await (const piece of reply.duplex) {
        t.ok(api.trace.getActiveSpan()?.isRecording(), 'the handler is within the span')
        yield String(piece).toUpperCase()
      }
    })
    app.get('/plain', async () => 'plain')
    fails(app)
  })
  await trace(t, served, () => [...spans('POST'), ...spans('GET')], [['/upper', 200, api.SpanStatusCode.UNSET], ['/broken', undefined, api.SpanStatusCode.ERROR], ['/plain', 200, api.SpanStatusCode.UNSET]])
  await provider.shutdown()
})
