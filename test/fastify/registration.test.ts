// Where and how often the plugin is registered, with which options; and routes that it has not seen.

import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import t from 'tap'
import duplex from '../../lib/index.ts'

const handler = (request: FastifyRequest, reply: FastifyReply): void => { reply.duplex.end('duplex') }

t.test('a route that the plugin has not seen', async (t) => {
  const setups: Record<string, [expected: string, (app: FastifyInstance) => unknown]> = {
    'before the plugin is registered': ['POST /', async (app) => {
      app.post('/', { duplex: true }, handler)
      await app.register(duplex)
    }],
    'before the plugin is loaded': ['GET /a', (app) => {
      app.register(duplex)
      app.get('/a', { duplex: {} }, handler) // Fastify adds a route for HEAD
    }],
    'with several methods': ['POST,PUT /b', (app) => {
      app.route({ method: ['POST', 'PUT'], url: '/b', duplex: { bodyLimit: 1 }, handler })
      app.register(duplex)
    }],
    'in the parent of the scope that has the plugin': ['POST /c', async (app) => {
      await app.register(async (scope) => {
        await scope.register(duplex)
        scope.post('/seen', { duplex: true }, handler)
      })
      app.post('/c', { duplex: true }, handler)
    }],
    'in a sibling of that scope': ['POST /sibling/d', async (app) => {
      await app.register(async (scope) => { await scope.register(duplex) })
      await app.register(async (scope) => { scope.post('/d', { duplex: true }, handler) }, { prefix: '/sibling' })
    }],
    'with a value that is none': ['POST /e', async (app) => {
      app.post('/e', { duplex: 'true' as never }, handler)
      await app.register(duplex)
    }]
  }
  for (const [name, [route, setUp]] of Object.entries(setups)) {
    for (const start of [(app: FastifyInstance) => app.ready(), (app: FastifyInstance) => app.inject('/'), (app: FastifyInstance) => app.listen({ port: 0, host: '127.0.0.1' })]) {
      const app = Fastify()
      t.teardown(() => app.close())
      await setUp(app)
      await t.rejects(Promise.resolve(start(app)), { code: 'FST_ERR_DUPLEX_UNSEEN_ROUTE', message: new RegExp(`^Route ${route} .*await app.register`) }, name)
    }
  }
})

t.test('routes that are none of its business', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  app.addHook('onRoute', (route) => { if (route.url === '/hook') route.duplex = false })
  app.post('/false', { duplex: false }, async () => 'ordinary')
  app.post('/undefined', { duplex: undefined }, async () => 'ordinary')
  app.post('/hook', { duplex: true }, async () => 'ordinary')
  await app.register(duplex)
  await app.register(async (scope) => { scope.get('/', { duplex: true }, handler) }, { prefix: '/both' })
  await app.ready()
  t.equal((await app.inject({ method: 'POST', url: '/hook' })).payload, 'ordinary')
  for (const url of ['/both', '/both/']) t.equal((await app.inject(url)).payload, 'duplex')

  const without = Fastify()
  t.teardown(() => without.close())
  without.post('/', { duplex: true }, async () => 'ordinary')
  t.equal((await without.inject({ method: 'POST', url: '/' })).payload, 'ordinary', 'an app without the plugin')
})

t.test('an app that was there before the module of the plugin', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  const { default: plugin } = t.mockRequire('../../lib/index.ts', {}) as { default: typeof duplex }
  app.post('/early', { duplex: true }, handler)
  await app.register(plugin)
  app.post('/late', { duplex: true }, handler)
  t.equal((await app.inject({ method: 'POST', url: '/late' })).payload, 'duplex')
  const response = await app.inject({ method: 'POST', url: '/early' })
  t.match(response.json(), { statusCode: 500, code: 'FST_ERR_DUPLEX_NOT_ENABLED', message: /await app.register/ })
})

t.test('what `duplex` of a route may be', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(duplex)
  for (const value of ['true', '', 1, 0, null, [], ['idleTimeout'], () => {}, new Map(), new Date(0), Symbol('true'), 1n]) {
    t.throws(() => app.post('/', { duplex: value as never }, handler), { code: 'FST_ERR_DUPLEX_OPTION', message: /^Invalid duplex option "duplex": expected true, false or an object of options$/ })
  }
  for (const [i, value] of [true, {}, Object.create(null), { idleTimeout: 1000 }, new class Options {}()].entries()) {
    app.post(`/${i}`, { duplex: value }, handler)
  }
  await app.ready()
  for (let i = 0; i < 5; i++) t.equal((await app.inject({ method: 'POST', url: `/${i}` })).payload, 'duplex')
})

t.test('registered twice', async (t) => {
  const REGISTERED = { code: 'FST_ERR_DUPLEX_REGISTERED', message: /already registered/ }
  const same = Fastify()
  await same.register(duplex)
  await t.rejects(async () => { await same.register(duplex, { idleTimeout: 1 }) }, REGISTERED)
  const late = Fastify()
  late.register(duplex)
  late.register(duplex)
  await t.rejects(Promise.resolve(late.ready()), REGISTERED)
  const child = Fastify()
  await child.register(duplex)
  child.register(async (scope) => { await scope.register(duplex) })
  await t.rejects(Promise.resolve(child.ready()), REGISTERED, 'the routes of a child are those of its parent')
})

t.test('options of register() that are Fastify\'s', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(duplex, { prefix: '/a', logLevel: 'warn', logSerializers: { a: String }, bodyLimit: 3 })
  t.throws(() => app.post('/b', { duplex: { prefix: '/b' } as {} }, handler), { code: 'FST_ERR_DUPLEX_OPTION', message: /"prefix"/ })
  app.post('/', { duplex: true }, handler)
  t.equal((await app.inject({ method: 'POST', url: '/' })).payload, 'duplex')
  t.equal((await app.inject({ method: 'POST', url: '/', payload: 'long' })).statusCode, 413)
  await t.rejects(async () => { await Fastify().register(duplex, { prefixes: '/a' } as {}) }, { code: 'FST_ERR_DUPLEX_OPTION', message: /"prefixes"/ })
})
