// The page at `/`: the open exchanges of the server, live, and buttons that start a conversation. Browsers send the whole request
// before they read the response, so the server itself is the client of these conversations. The page shows both directions. What it
// shows comes as server-sent events from a duplex route: `app.duplex.exchanges()`, the diagnostics channels, and what the
// conversations say. Each conversation ends by itself, also if the page is closed.

import { createHash } from 'node:crypto'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { EventEmitter } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Static, Type, type TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import type { ExchangeEvent } from 'fastify-duplex'
import { sse } from 'fastify-duplex/items'
import { CONVERSATIONS, type Name } from './conversations.ts'

const text = Type.String()
const count = Type.Number()

const eventSchema = Type.Union([
  Type.Object({
    type: Type.Literal('open'),
    total: count,
    exchanges: Type.Array(Type.Object({ id: text, method: text, route: text, state: text, request: text, response: text, up: count, down: count, age: count }))
  }),
  Type.Object({ type: Type.Literal('life'), id: text, route: text, event: text, up: count, down: count, duration: count, code: text }),
  Type.Object({ type: Type.Literal('said'), call: count, name: text, direction: Type.Union([Type.Literal('up'), Type.Literal('down')]), text }),
  Type.Object({ type: Type.Literal('over'), call: count, name: text, error: text })
])

type PageEvent = Static<typeof eventSchema>

/** Pages that are open at once. */
const MAX_PAGES = 6
/** Conversations at once. */
const MAX_CALLS = 6
/** Exchanges that a page shows. */
const MAX_SHOWN = 100
/** Events that wait for a page. If it is slower, it misses the oldest. */
const MAX_WAITING = 500
/** Milliseconds after which a conversation is ended. */
const CALL_LIMIT = 20_000
/** Milliseconds between two looks at the open exchanges. */
const PERIOD = 250
/** Another name could be that of a site that has rebound its name to this address, to read the page. */
const HOSTS = ['127.0.0.1', 'localhost']

export async function page (app: FastifyInstance): Promise<void> {
  const typed = app.withTypeProvider<TypeBoxTypeProvider>()
  const html = await readFile(join(__dirname, '../page.html'), 'utf8')
  const script = createHash('sha256').update(/<script>(.*)<\/script>/s.exec(html)![1]).digest('base64')
  const policy = `default-src 'none'; connect-src 'self'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-${script}'; frame-ancestors 'none'`
  const events = new EventEmitter().setMaxListeners(MAX_PAGES)
  const tell = (event: PageEvent): void => { events.emit('event', event) }
  watchLife(app, tell)

  app.addHook('onRequest', async (request, reply) => {
    const from = request.headers['sec-fetch-site'] ?? 'none'
    const isForeign = request.method !== 'GET' && from !== 'same-origin' && from !== 'none'
    if (!HOSTS.includes(request.hostname) || isForeign) return reply.code(403).send('Not from here')
  })

  app.get('/', (request, reply) => {
    reply.headers({ 'content-security-policy': policy, 'cache-control': 'no-store' }).type('text/html; charset=utf-8').send(html)
  })

  typed.get('/events', {
    duplex: { send: sse(eventSchema), maxExchanges: MAX_PAGES }
  }, async function * ({ signal }) {
    const waiting: PageEvent[] = []
    let wake = (): void => {}
    const add = (event: PageEvent): void => {
      if (waiting.length === MAX_WAITING) waiting.shift()
      waiting.push(event)
      wake()
    }
    const timer = setInterval(() => add(openExchanges(app)), PERIOD)
    events.on('event', add)
    signal.addEventListener('abort', () => wake())
    try {
      add(openExchanges(app))
      while (!signal.aborted) {
        yield * waiting.splice(0)
        if (waiting.length === 0 && !signal.aborted) await new Promise<void>((resolve) => { wake = resolve })
      }
    } finally {
      clearInterval(timer)
      events.off('event', add)
    }
  })

  let calls = 0
  let running = 0
  const closing = new AbortController()
  app.addHook('preClose', async () => closing.abort())
  typed.post('/start/:name', {
    schema: { params: Type.Object({ name: Type.Unsafe<Name>({ enum: Object.keys(CONVERSATIONS) }) }) }
  }, async ({ params: { name } }, reply) => {
    if (running === MAX_CALLS) return reply.code(503).send({ message: `${MAX_CALLS} conversations are running. Wait for one to end.` })
    const call = ++calls
    running++
    CONVERSATIONS[name]({
      origin: app.listeningOrigin,
      signal: AbortSignal.any([closing.signal, AbortSignal.timeout(CALL_LIMIT)]),
      say: (direction, text) => tell({ type: 'said', call, name, direction, text })
    }).then(() => '', ({ message }) => message).then((error) => {
      running--
      tell({ type: 'over', call, name, error })
    })
    return reply.code(202).send({ call })
  })
}

function openExchanges (app: FastifyInstance): PageEvent {
  const open = app.duplex.exchanges()
  return {
    type: 'open',
    total: open.length,
    exchanges: open.slice(0, MAX_SHOWN).map(({ id, method, route, state, framing, bytesRead, bytesWritten, age }) => {
      return { id, method, route, state, request: framing.request, response: framing.response ?? '', up: bytesRead, down: bytesWritten, age }
    })
  }
}

/** Tells of the beginning, the head and the end of each exchange. The channels are those of all apps in this process. */
function watchLife (app: FastifyInstance, tell: (event: PageEvent) => void): void {
  for (const event of ['start', 'head', 'finish', 'error']) {
    const channel = `fastify-duplex.exchange.${event}`
    const listener = (message: unknown): void => {
      const { request, bytesRead: up, bytesWritten: down, duration, error } = message as ExchangeEvent
      if (request.server.server !== app.server) return
      tell({ type: 'life', id: request.id, route: request.routeOptions.url!, event, up, down, duration, code: (error as NodeJS.ErrnoException)?.code ?? '' })
    }
    subscribe(channel, listener)
    app.addHook('onClose', async () => { unsubscribe(channel, listener) })
  }
}
