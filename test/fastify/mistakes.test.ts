// The mistakes of new users: each is answered where it is made, with words that say what to write instead.

import { PassThrough, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { FastifyReply, FastifyRequest } from 'fastify'
import Fastify from 'fastify'
import t from 'tap'
import duplex from '../../lib/index.ts'
import { jsonl } from '../../lib/items/index.ts'
import { KINDS, serveKind } from '../support/kinds.ts'
import { chunked, serve } from '../support/wire.ts'

type Handler = (request: FastifyRequest, reply: FastifyReply) => any

interface Mistake {
  handler: Handler
  options?: object
  code: string
  /** What the message says. */
  says: RegExp
}

const ITEMS = { duplex: { send: jsonl({ type: 'object' }) } }

/** Values that are neither strings nor bytes, and what is said of each. */
const NO_CONTENT: [string, unknown, RegExp][] = [
  ['an object', { a: 1 }, /an object \(Object\) .*send: jsonl\(Schema\).*JSON\.stringify/],
  ['an object without a prototype', Object.create(null), /an object \(without a prototype\).*jsonl/],
  ['an array', [1], /an array .*jsonl/],
  ['a number', 1, /a number \(1\) .*String\(value\)/],
  ['a boolean', false, /a boolean \(false\)/],
  ['a bigint', 1n, /a bigint \(1\)/],
  ['a symbol', Symbol('s'), /a symbol \(Symbol\(s\)\)/],
  ['undefined', undefined, /undefined .*reply\.duplex\.end\(\)/],
  ['null', null, /null .*reply\.duplex\.end\(\)/],
  ['a Blob', new Blob(['x']), /Blob.*blob\.stream\(\)/],
  ['an ArrayBuffer', new ArrayBuffer(1), /ArrayBuffer.*new Uint8Array\(buffer\)/]
]

function * letters (): Generator<string> { yield 'a' }

/** Answered with 500, as long as nothing was sent. */
const ANSWERED: Record<string, Mistake> = {
  ...Object.fromEntries(NO_CONTENT.flatMap(([name, value, says]) => [
    [`writes ${name}`, { handler: async (_request: unknown, { duplex }: FastifyReply) => { duplex.write(value as string) }, code: 'CONTENT', says }],
    [`yields ${name}`, { handler: async function * () { yield value as string }, code: 'CONTENT', says }]
  ])),
  'ends with an object': { handler: (_request, { duplex }) => { duplex.end({} as never) }, code: 'CONTENT', says: /JSON\.stringify/ },
  'ends with an object, and a callback': { handler: async (_request, { duplex }) => { duplex.end(1 as never, () => {}) }, code: 'CONTENT', says: /String\(value\)/ },
  'writes an item as bytes': { handler: async (_request, { duplex }) => { duplex.write({} as never) }, options: ITEMS, code: 'CONTENT', says: /reply\.duplex\.send\(item\)/ },
  'returns a stream of objects': { handler: async () => Readable.from([{}]), code: 'CONTENT', says: /jsonl/ },
  'pipes objects': {
    handler: (_request, { duplex }) => {
      const objects = new PassThrough({ objectMode: true })
      objects.pipe(duplex)
      objects.end({})
    },
    code: 'CONTENT',
    says: /jsonl/
  },
  'pipes objects in a pipeline': { handler: async (_request, { duplex }) => pipeline(new PassThrough({ objectMode: true }).end({}), duplex), code: 'CONTENT', says: /jsonl/ },
  'returns an iterator that is not asynchronous': { handler: async () => ['a'].values(), code: 'BODY', says: /async function \*.*array/ },
  'returns a generator object': { handler: () => letters(), code: 'BODY', says: /async function \*/ },
  'sends a generator object': { handler: (_request, reply) => { reply.send(letters()) }, code: 'BODY', says: /async function \*/ },
  'returns a Blob': { handler: async () => new Blob(['x']), code: 'BODY', says: /blob\.stream\(\)/ }
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: answered with what to do instead`, async (t) => {
    const { ask, log } = await serveKind(t, kind, (app, routeOptions) => {
      Object.values(ANSWERED).forEach(({ handler, options = { duplex: true } }, i) => { app.post(`/${i}`, { ...options, ...routeOptions }, handler as never) })
      app.post('/after', { duplex: true, ...routeOptions }, async (_request, reply) => { reply.duplex.end('after') })
    })
    const mistakes = Object.entries(ANSWERED)
    for (let i = 0; i < mistakes.length; i++) {
      const [mistake, { code, says }] = mistakes[i]
      for (const [path, statusCode] of [[`/${i}`, 500], ['/after', 200]] as const) {
        const asked = await ask(path, kind === KINDS['asynchronous constraint'] ? { later: 'yes' } : {})
        asked.end()
        t.equal(await asked.status(), statusCode, `${mistake}: ${path}`)
        const body = await asked.body()
        if (statusCode === 200) t.equal(body, 'after')
        else t.match(JSON.parse(body), { code: `FST_ERR_DUPLEX_${code}`, message: says }, mistake)
      }
    }
    t.strictSame(log.filter(({ level }) => level > 30).map(({ err }) => err?.code), mistakes.map(([, { code }]) => `FST_ERR_DUPLEX_${code}`), 'one line each')
  })
}

t.test('refused when the route is added', async (t) => {
  const app = Fastify()
  await app.register(duplex)
  t.teardown(() => app.close())
  t.throws(() => app.post('/', { duplex: true }, letters as never), { code: 'FST_ERR_DUPLEX_SYNC_GENERATOR', message: /POST \/.*async function \*/ })
  t.throws(() => app.route({ method: 'PUT', url: '/', ...ITEMS, handler: letters as never }), { code: 'FST_ERR_DUPLEX_SYNC_GENERATOR', message: /PUT \// })
  app.get('/', letters as never)
})

t.test('reply.raw beside reply.duplex', async (t) => {
  const { connect, log } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async (_request, reply) => {
      reply.raw.writeHead(200)
      reply.duplex.end('x')
    })
  })
  const wire = await connect()
  await wire.send(chunked('/')).ended
  t.match(log.find(({ level }) => level === 50), { err: { code: 'FST_ERR_DUPLEX_HEAD_SENT', message: /reply\.raw was used.*reply\.code\(\) and reply\.header\(\).*reply\.duplex/ } })
})

t.test('strings and bytes are content', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async function * (_request, { duplex }) {
      duplex.write('a')
      duplex.write(new DataView(Uint8Array.of(98).buffer))
      yield Buffer.from('c')
      yield Uint8Array.of(100)
      duplex.end(undefined as never)
    })
  })
  t.match(await (await connect()).request(chunked('/')), { statusCode: 200, body: 'abcd' })
})
