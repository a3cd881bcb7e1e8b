// Tests the package as users get it: packed, installed into apps of both module systems, compiled with every module
// resolution, and run. `npm run test:package` builds it first.

import { cp, mkdir, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import t from 'tap'
import { ROOT, pack, run, runBin } from './support.ts'

const CONSUMERS = join(__dirname, 'consumers')
const INSTALLED = join(CONSUMERS, 'node_modules/fastify-duplex')
const CHECK = 'function check (isRight) { if (!isRight) process.exitCode = 1 }\n'

const MODULES = join(ROOT, 'node_modules')

let tarball: string
let contents: string[]

t.before(async () => {
  ;({ tarball, contents } = await pack(t.testdir()))
  await rm(INSTALLED, { recursive: true, force: true })
  for (const path of contents) {
    await mkdir(dirname(join(INSTALLED, path)), { recursive: true })
    await cp(join(ROOT, path), join(INSTALLED, path))
  }
})
t.teardown(() => rm(join(CONSUMERS, 'node_modules'), { recursive: true, force: true }))

t.test('contains the intended files only', async (t) => {
  t.strictSame(contents.filter((path) => !/^dist\/([a-z-]+\/)?[a-z0-9-]+\.js$/.test(path)).sort(), ['LICENSE', 'README.md', 'docs/client-and-proxy.md', 'docs/clients-and-proxies.md', 'docs/errors.md', 'docs/http2.md', 'docs/items.md', 'docs/lifecycle.md', 'docs/migrating.md', 'docs/other-plugins.md', 'docs/performance.md', 'docs/reply-duplex.md', 'docs/testing.md', 'docs/transfer.md', 'docs/troubleshooting.md', 'docs/tunnels.md', 'index.js', 'package.json', 'types/client.d.ts', 'types/index.d.ts', 'types/items.d.ts', 'types/proxy.d.ts', 'types/transfer.d.ts'])
})

t.test('attw and publint find no problem', async () => {
  await runBin(join(MODULES, '@arethetypeswrong/cli'), 'attw', [tarball])
  await runBin(join(MODULES, 'publint'), 'publint', [tarball, '--strict'])
})

for (const [module, moduleResolution, apps] of [
  ['node16', 'node16', ['cjs', 'esm']],
  ['nodenext', 'nodenext', ['cjs', 'esm']],
  ['esnext', 'bundler', ['esm']]
] as const) {
  t.test(`${apps.join(' and ')} app, moduleResolution ${moduleResolution}`, async (t) => {
    const build = join(CONSUMERS, 'node_modules', moduleResolution)
    await runBin(join(MODULES, 'typescript'), 'tsc', ['--ignoreConfig', '--strict', '--skipLibCheck', 'false', '--target', 'es2022', '--types', 'node', '--module', module, '--moduleResolution', moduleResolution, '--rootDir', CONSUMERS, '--outDir', build, ...apps.map((app) => join(CONSUMERS, app, 'app.ts'))])
    for (const app of apps) {
      await cp(join(CONSUMERS, app, 'package.json'), join(build, app, 'package.json'))
      const { stdout } = await run(process.execPath, [join(build, app, 'app.js')], { env: {} })
      t.equal(stdout, 'a\nFST_ERR_DUPLEX_OPTION\n200 ONE\n200 ONE\n')
    }
  })
}

t.test('app.injectDuplex() under vitest', async () => {
  await runBin(join(MODULES, 'vitest'), 'vitest', ['run', '--root', join(CONSUMERS, 'esm')])
})

const SCRIPTS = {
  'require() is the plugin itself': ['commonjs', `
    const plugin = require('fastify-duplex')
    const { default: byDefault, fastifyDuplex } = plugin
    check(typeof plugin === 'function' && plugin === byDefault && plugin === fastifyDuplex)`],
  'import, by default and by name': ['module', `
    import byDefault, { fastifyDuplex } from 'fastify-duplex'
    check(typeof byDefault === 'function' && byDefault === fastifyDuplex)`]
}

for (const [name, [type, script]] of Object.entries(SCRIPTS)) {
  t.test(name, async (t) => {
    await t.resolves(run(process.execPath, [`--input-type=${type}`, '--eval', script + '\n' + CHECK], { cwd: CONSUMERS, env: {} }))
  })
}

t.test('works over a real connection', async (t) => {
  const { stdout } = await run(process.execPath, ['--eval', `
    const app = require('fastify')()
    app.register(require('fastify-duplex'))
    app.after(() => app.post('/', { duplex: true }, (request, reply) => { reply.duplex.pipe(reply.duplex) }))
    app.listen({ port: 0 }).then(async (address) => {
      const response = await fetch(address, { method: 'POST', body: 'built' })
      console.log(await response.text())
      await app.close()
    })`], { cwd: CONSUMERS, env: {} })
  t.equal(stdout, 'built\n')
})
