// The package as it is built: how it is loaded. `npm test` builds it first.

import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import t from 'tap'

const run = promisify(execFile)
const SCRIPTS = {
  'require() is the plugin itself': ['commonjs', `
    const plugin = require('fastify-duplex')
    const { default: byDefault, fastifyDuplex } = plugin
    check(typeof plugin === 'function' && plugin === byDefault && plugin === fastifyDuplex)`],
  'import, by default and by name': ['module', `
    import byDefault, { fastifyDuplex } from 'fastify-duplex'
    check(typeof byDefault === 'function' && byDefault === fastifyDuplex)`]
}
const CHECK = 'function check (isRight) { if (!isRight) process.exitCode = 1 }'

for (const [name, [type, script]] of Object.entries(SCRIPTS)) {
  t.test(name, async (t) => {
    await t.resolves(run(process.execPath, [`--input-type=${type}`, '--eval', script + '\n' + CHECK], { env: {} }))
  })
}

t.test('works as it is built', async (t) => {
  const { stdout } = await run(process.execPath, ['--eval', `
    const app = require('fastify')()
    app.register(require('fastify-duplex'))
    app.after(() => app.post('/', { duplex: true }, (request, reply) => { reply.duplex.pipe(reply.duplex) }))
    app.listen({ port: 0 }).then(async (address) => {
      const response = await fetch(address, { method: 'POST', body: 'built' })
      console.log(await response.text())
      await app.close()
    })`], { env: {} })
  t.equal(stdout, 'built\n')
})
