// Clients in other languages: curl, Go's net/http, Python's http.client, aiohttp and httpx. Those that are not installed are
// skipped. The tests show how they differ: see docs/clients-and-proxies.md.

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import t from 'tap'
import { ENDLESS, MB, PYTHON, type Served, Source, run, serve, unlessInstalled } from './support.ts'

let served: Served
let url: (path: string) => string
t.before(async () => {
  served = await serve(t)
  url = (path) => served.address + path
})

t.test('curl', { skip: unlessInstalled('curl', '--version') }, async (t) => {
  const endless = join(t.testdir(), 'endless') // sparse
  await writeFile(endless, '')
  await truncate(endless, ENDLESS)
  const quiet = ['-sS', '-o', '/dev/null', '-X', 'POST', '-w', '%{http_code} %{size_upload}\n']
  const noExpect = ['-H', 'Expect:']

  t.test('-N -T . shows each answer before the next word is sent', async (t) => {
    const curl = spawn('curl', ['-sSN', '-T', '.', '-X', 'POST', url('/upper')])
    for (const word of ['one', 'two', 'three']) {
      curl.stdin.write(word)
      t.equal(String(await once(curl.stdout, 'data')), word.toUpperCase())
    }
    curl.stdin.end()
    t.strictSame(await once(curl, 'close'), [0, null])
  })

  for (const [name, args] of [
    ['chunked', ['-T', '-']],
    ['chunked, with Expect', ['-T', '-', '-H', 'Expect: 100-continue']],
    ['chunked to HTTP/1.0', ['-0', '--data-binary', '@-']],
    ['with Content-Length', ['--data-binary', '@-']]
  ] as const) {
    t.test(`gets an echo of more than any buffer holds, ${name}`, async (t) => {
      const [size] = await run('curl', ['-sS', '-o', '/dev/null', '-X', 'POST', '-w', '%{size_download}\n', ...args, url('/echo')], new Source(64 * MB))
      t.equal(Number(size), 64 * MB)
    })
  }

  t.test('-d and --data-binary read all of their input before they send it', async (t) => {
    t.strictSame(await run('curl', ['-sS', '--data-binary', '@-', url('/upper')], Readable.from(['one', 'two'])), ['ONETWO'])
  })

  t.test('with Expect sends nothing of an upload that is refused', async (t) => {
    t.strictSame(await run('curl', [...quiet, '-H', 'Expect: 100-continue', '--expect100-timeout', '60', '-T', endless, url('/refused')]), ['403 0'])
  })

  for (const [framing, file, input] of [['Content-Length', endless, undefined], ['chunked', '-', new Source(ENDLESS)]] as const) {
    t.test(`without Expect stops sending when it is refused, ${framing}`, async (t) => {
      const [line] = await run('curl', [...quiet, ...noExpect, '-T', file, url('/refused')], input)
      t.match(line, /^403 /)
    })
  }

  t.test('does not stop sending after a 2xx, and fails when the server closes the connection', async (t) => {
    const lines = await run('curl', [...quiet, ...noExpect, '-T', endless, url('/early')])
    t.match(lines[0], /^200 /)
    t.match(lines[1], /^curl: \((55|56)\)/)
  })
})

t.test("Go's http.Client", { skip: unlessInstalled('go', 'version') }, async (t) => {
  const program = join(t.testdir(), 'client')
  execFileSync('go', ['build', '-o', program, '.'], { cwd: join(__dirname, 'go') })
  const go = (mode: string, path: string, size = 0): Promise<string[]> => run(program, [mode, url(path), String(size)])

  t.test('reads each answer before it sends the next word, and sends trailers', async (t) => {
    t.strictSame(await go('talk', '/received'), ['one', 'two', 'three', 'end 0 map[] <nil>'])
    t.match(served.last('/received'), { framing: 'chunked', trailers: { 'x-words': '3' } })
  })

  t.test('gets an echo of more than any buffer holds', async (t) => {
    t.strictSame(await go('echo', '/echo', 64 * MB), [`${64 * MB} true`])
  })

  t.test('gets a refusal and an early answer while it is sending', async (t) => {
    t.match(await go('upload', '/refused', ENDLESS), [/^403 true false/])
    t.match(await go('upload', '/early', ENDLESS), [/^200 true false/])
  })

  t.test('with Expect sends nothing of an upload that is refused', async (t) => {
    t.strictSame(await go('expect', '/refused', ENDLESS), ['403 true false true'])
  })
})

const python = (client: string) => (mode: string, path: string, size = 0): Promise<string[]> => {
  return run(PYTHON, [join(__dirname, 'python', `with_${client}.py`), mode, url(path), String(size)])
}

t.test('aiohttp', { skip: unlessInstalled(PYTHON, '-c', 'import aiohttp') }, async (t) => {
  const aiohttp = python('aiohttp')

  t.test('reads each answer before it sends the next word', async (t) => {
    t.strictSame(await aiohttp('talk', '/upper'), ['ONE', 'TWO', 'THREE', 'end 0'])
  })

  t.test('gets an echo of more than any buffer holds', async (t) => {
    t.strictSame(await aiohttp('echo', '/echo', 64 * MB), [`${64 * MB} True`])
  })

  t.test('gets a refusal and an early answer while it is sending', async (t) => {
    t.strictSame(await aiohttp('upload', '/refused', ENDLESS), ['403 True False False'])
    t.strictSame(await aiohttp('upload', '/early', ENDLESS), ['200 True False False'])
  })

  t.test('with Expect sends nothing of an upload that is refused', async (t) => {
    t.strictSame(await aiohttp('expect', '/refused', ENDLESS), ['403 True False True'])
  })
})

t.test("Python's http.client, framed by hand, reads each answer before it sends the next word", { skip: unlessInstalled(PYTHON, '--version') }, async (t) => {
  t.strictSame(await python('http_client')('talk', '/received'), ['one', 'two', 'three', 'end 0'])
  t.match(served.last('/received'), { framing: 'chunked', trailers: { 'x-words': '3' } })
})

// These clients send the whole request before they read. Meanwhile the response fills the buffers between client and server.
// When those are full, the handler's writes wait, so it stops reading, and client and server wait for each other.
for (const [name, client, answers] of [
  ["Python's http.client", 'http_client', ['broken', '403 True']],
  ['httpx', 'httpx', ['403 True']]
] as const) {
  t.test(`${name}, which sends the whole request before it reads`, { skip: unlessInstalled(PYTHON, '-c', client === 'httpx' ? 'import httpx' : '') }, async (t) => {
    const program = python(client)

    t.test('gets an echo that fits into the buffers', async (t) => {
      t.strictSame(await program('echo', '/echo', MB), [`${MB} True`])
    })

    t.test('deadlocks when the buffers are full, until idleTimeout', async (t) => {
      const lines = await program('echo', '/impatient', 64 * MB)
      t.match(lines.at(-1), /ConnectionReset|BrokenPipe|RemoteProtocolError|ReadError/)
      const { code, bytesRead } = served.last('/impatient')
      t.equal(code, 'FST_ERR_DUPLEX_IDLE')
      t.ok(bytesRead > MB && bytesRead < 64 * MB)
      t.comment(`${bytesRead} bytes were read by then`)
    })

    t.test('gets an echo of any size if the handler reads the whole request before it writes', async (t) => {
      t.strictSame(await program('echo', '/spooled', 64 * MB), [`${64 * MB} True`])
    })

    t.test('gets a refusal while it is sending', async (t) => {
      t.strictSame(await program('upload', '/refused', ENDLESS), answers)
    })
  })
}
